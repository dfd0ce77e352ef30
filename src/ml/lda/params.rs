//! Parameters, checked once.

/// How topics are found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Optimizer {
    /// Spark's update from a random start: exactly `iterations` batch epochs, one sweep a document (Jacobi).
    Em,
    /// Minibatches from topics made of documents, superfluous topics merged, then batch epochs until the log-likelihood
    /// stands still or `iterations` are done.
    Online,
}

/// Parameters as a user gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LdaParams {
    /// How.
    pub optimizer: Optimizer,
    /// K, 1 to 56.
    pub topics: usize,
    /// a = α − 1, the pseudo-count of each topic in a document, over 0.
    pub document_pseudo_count: f32,
    /// b = η − 1, the pseudo-count of each word in a topic, over 0.
    pub word_pseudo_count: f32,
    /// Batch epochs: exactly (em), at most (online).
    pub iterations: u32,
    /// Online: passes over the corpus in minibatches.
    pub online_epochs: u32,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// A parameter that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ParamsError {
    /// Number of topics.
    #[error("topics is {0}, must be 1 to 56")]
    Topics(usize),
    /// Pseudo-count of topics.
    #[error("alpha is {0}, must be over 1")]
    Alpha(f32),
    /// Pseudo-count of words.
    #[error("beta is {0}, must be over 1")]
    Beta(f32),
}

/// The most topics; 8 lanes of the 64 stay for topics that are merged.
const TOPICS_MAX: usize = 56;

/// Parameters that a fit accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheckedLdaParams(LdaParams);

impl LdaParams {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value out of range; α and β are named as Spark and Spot do.
    pub fn check(self) -> Result<CheckedLdaParams, ParamsError> {
        let usable = |value: f32| value.is_finite() && value > 0.0;
        if !(1..=TOPICS_MAX).contains(&self.topics) {
            return Err(ParamsError::Topics(self.topics));
        }
        if !usable(self.document_pseudo_count) {
            return Err(ParamsError::Alpha(self.document_pseudo_count + 1.0));
        }
        if !usable(self.word_pseudo_count) {
            return Err(ParamsError::Beta(self.word_pseudo_count + 1.0));
        }
        Ok(CheckedLdaParams(self))
    }
}

impl CheckedLdaParams {
    /// Returns the values.
    #[must_use]
    pub fn get(&self) -> &LdaParams {
        &self.0
    }
}
