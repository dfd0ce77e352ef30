//! Trains the day's models and averages their scores.

use std::num::NonZeroUsize;
use std::time::Instant;

use serde::Serialize;

use crate::column::Column;
use crate::column::RoomError;
use crate::config::Suspicious;
use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::HeldOut;
use crate::ml::lda;
use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::CorpusError;
use crate::ml::lda::Epoch;
use crate::ml::lda::Fit;
use crate::ml::lda::LdaParams;
use crate::ml::lda::MixtureParams;
use crate::ml::lda::Optimizer;
use crate::ml::lda::ParamsError;
use crate::ml::lda::Workers;
use crate::ml::rng;
use crate::parallel;

/// A use of random numbers.
const USE_MODEL: u64 = 12;
/// How documents are folded in when held-out perplexity is measured: sweeps and tolerance.
const HELD_OUT_SWEEPS: u32 = 30;
const HELD_OUT_TOLERANCE: f32 = 1e-3;

/// What a model is trained on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Each pair counts once, so that loudness buys no probability.
    Presence,
    /// Counts of flows, as Spot does.
    Tokens,
}

impl Kind {
    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Tokens => "tokens",
        }
    }
}

/// An epoch of a model, for whoever shows progress.
#[derive(Clone, Copy, Debug)]
pub struct ModelEpoch {
    /// What it is trained on.
    pub kind: Kind,
    /// 0-based, and how many there are of the kind.
    pub model: (usize, usize),
    /// The epoch, and the most there can be; once the model is done, how many there were.
    pub epoch: (Epoch, u32),
}

/// One trained model in the run report.
#[derive(Clone, Debug, Serialize)]
pub struct ModelReport {
    /// What it was trained on.
    pub kind: Kind,
    /// Its seed.
    pub seed: u64,
    /// Seconds.
    pub fit_s: f64,
    /// Training documents.
    pub documents: usize,
    /// Training tokens.
    pub tokens: u64,
    /// V.
    pub vocabulary: usize,
    /// exp of minus the mean log-likelihood of a held-out token; null where nothing is held out.
    pub held_out_perplexity: Option<f64>,
    /// Mean log-likelihood of a training token, by epoch.
    pub log_likelihood: Vec<f64>,
    /// Logarithm of the posterior, by epoch.
    pub objective: Vec<f64>,
}

impl ModelReport {
    /// Returns what does not change from run to run.
    #[must_use]
    pub fn stable(&self) -> serde_json::Value {
        let mut value = serde_json::json!(self);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("fit_s");
        }
        value
    }
}

/// Mean scores of each group, in the order of [`DayCorpus::groups`].
#[derive(Debug)]
pub struct Scores {
    /// p: presence models.
    pub presence: Column<f64>,
    /// q: token models.
    pub tokens: Column<f64>,
}

/// Why there are no models.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The documents.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// Something has no room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// A parameter.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// A model file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// What went wrong.
        error: parquet::errors::ParquetError,
    },
}

/// Where models are trained that are not trained on threads of this process.
pub trait Elsewhere: Sync {
    /// What does E-steps of one corpus, and scores its pairs.
    type Workers: Workers + Send + Sync;
    /// Why there are no models.
    type Error: From<ModelError> + Send;

    /// Takes a corpus there.
    ///
    /// # Errors
    /// It cannot be taken there.
    fn take(&self, name: &str, corpus: &Corpus) -> Result<Self::Workers, Self::Error>;

    /// Returns the error of a failed E-step or of failed scores.
    fn error(error: <Self::Workers as Workers>::Error) -> Self::Error;
}

/// What the models of a kind learn from.
struct Learned<W> {
    kind: Kind,
    /// All documents, where they are not those of the day.
    presence: Option<Corpus>,
    parts: HeldOut,
    /// What does E-steps of the training documents, and of all, and scores these.
    workers: Option<(W, W)>,
}

/// What trains the models of a day.
pub struct Trainer<'a> {
    /// The day.
    pub corpus: &'a DayCorpus,
    /// Settings.
    pub settings: &'a Suspicious,
    /// Seed of the run.
    pub seed: u64,
    /// Threads.
    pub threads: NonZeroUsize,
}

impl Trainer<'_> {
    /// Returns the parameters of a model.
    ///
    /// # Errors
    /// A value out of range.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "pseudo-counts have few digits"
    )]
    pub fn params(&self, kind: Kind, model: usize) -> Result<CheckedLdaParams, ParamsError> {
        let settings = self.settings;
        LdaParams {
            optimizer: if settings.em {
                Optimizer::Em
            } else {
                Optimizer::Online
            },
            topics: settings.topics,
            document_pseudo_count: (settings.alpha - 1.0) as f32,
            word_pseudo_count: (settings.beta - 1.0) as f32,
            iterations: settings.iterations,
            online_epochs: settings.online_epochs,
            seed: rng::bits(self.seed, &[USE_MODEL, kind as u64, model as u64]),
        }
        .check()
    }

    /// Trains every model and returns the mean scores of each group; `keep` gets each model. As many are trained at the same time as
    /// there are threads, elsewhere all: models do not wait for each other, the threads of one model do.
    ///
    /// # Errors
    /// Parameters, room, what `keep` says, or workers.
    pub fn train<E: Elsewhere>(
        &self,
        (elsewhere, progress): (Option<&E>, &(dyn Fn(ModelEpoch) + Sync)),
        keep: &mut dyn FnMut(Kind, usize, Fit) -> Result<(), ModelError>,
    ) -> Result<(Scores, Vec<ModelReport>), E::Error> {
        let elsewhere = elsewhere.filter(|_| !self.settings.em);
        let kinds = [Kind::Presence, Kind::Tokens];
        let learned = parallel::map(self.threads, &kinds, |&kind| self.prepare(kind, elsewhere));
        let learned = learned.into_iter().collect::<Result<Vec<_>, _>>()?;
        let models: Vec<_> = learned
            .iter()
            .flat_map(|of| (0..self.models(of.kind)).map(move |model| (of, model)))
            .collect();
        let at_once = match elsewhere {
            Some(_) => models.len(),
            None => models.len().min(self.threads.get()),
        };
        let at_once = NonZeroUsize::new(at_once).unwrap_or(NonZeroUsize::MIN);
        let threads = self.threads.get().div_ceil(at_once.get());
        let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
        let fit = |&(of, model): &(&Learned<E::Workers>, usize)| -> Result<_, E::Error> {
            let params = self.params(of.kind, model).map_err(ModelError::from)?;
            let epoch = |epoch| {
                progress(ModelEpoch {
                    kind: of.kind,
                    model: (model, self.models(of.kind)),
                    epoch,
                });
            };
            let fitted = self.fit((of, &params), threads, epoch);
            Ok((params, fitted.map_err(E::error)?))
        };
        let fitted = parallel::map(at_once, &models, fit);
        let filled = || Column::filled(self.corpus.room(), 0.0, self.corpus.groups.len());
        let mut scores = Scores {
            presence: filled().map_err(ModelError::from)?,
            tokens: filled().map_err(ModelError::from)?,
        };
        let mut reports = Vec::with_capacity(models.len());
        for ((of, model), fitted) in models.into_iter().zip(fitted) {
            let (params, (report, fit)) = fitted?;
            let share = 1.0 / f64::from(u32::try_from(self.models(of.kind)).unwrap_or(1));
            let mut targets = match of.kind {
                Kind::Presence => scores.presence.iter_mut(),
                Kind::Tokens => scores.tokens.iter_mut(),
            };
            let add = |score| {
                if let Some(target) = targets.next() {
                    *target += f64::from(score) * share;
                }
            };
            match &of.workers {
                Some((_, workers)) => fit.scores_on(&params, workers, add).map_err(E::error)?,
                None => fit.scores(self.all(of), &params, self.threads, add),
            }
            keep(of.kind, model, fit)?;
            reports.push(report);
        }
        Ok((scores, reports))
    }

    fn prepare<E: Elsewhere>(
        &self,
        kind: Kind,
        elsewhere: Option<&E>,
    ) -> Result<Learned<E::Workers>, E::Error> {
        let presence = match kind {
            Kind::Presence => Some(self.corpus.counts.presence().map_err(ModelError::from)?),
            Kind::Tokens => None,
        };
        let parts = self
            .corpus
            .hold_out(self.settings.held_out, self.seed, kind == Kind::Presence)
            .map_err(ModelError::from)?;
        let workers = match elsewhere {
            Some(elsewhere) => {
                let all = presence.as_ref().unwrap_or(&self.corpus.counts);
                Some((
                    elsewhere.take(&format!("{}-train", kind.name()), &parts.train)?,
                    elsewhere.take(&format!("{}-all", kind.name()), all)?,
                ))
            }
            None => None,
        };
        Ok(Learned {
            kind,
            presence,
            parts,
            workers,
        })
    }

    /// All documents of a kind.
    fn all<'b, W>(&'b self, of: &'b Learned<W>) -> &'b Corpus {
        of.presence.as_ref().unwrap_or(&self.corpus.counts)
    }

    fn models(&self, kind: Kind) -> usize {
        match kind {
            Kind::Presence => self.settings.models,
            Kind::Tokens => self.settings.token_models,
        }
    }

    fn fit<W: Workers>(
        &self,
        (of, params): (&Learned<W>, &CheckedLdaParams),
        threads: NonZeroUsize,
        mut progress: impl FnMut((Epoch, u32)),
    ) -> Result<(ModelReport, Fit), W::Error> {
        let started = Instant::now();
        let online_epochs = if self.settings.em {
            0
        } else {
            params.get().online_epochs
        };
        let epochs = params.get().iterations + online_epochs;
        let (mut log_likelihood, mut objective, mut last) = (Vec::new(), Vec::new(), None);
        let HeldOut {
            train,
            observed,
            held,
        } = &of.parts;
        let on = (threads, of.workers.as_ref().map(|(train, _)| train));
        let mut fit = lda::fit_on(train, params, on, |epoch| {
            log_likelihood.push(epoch.log_likelihood_per_token);
            objective.push(epoch.objective);
            last = Some(epoch);
            progress((epoch, epochs));
        })?;
        let mixture = MixtureParams {
            document_pseudo_count: params.get().document_pseudo_count,
            sweeps_max: HELD_OUT_SWEEPS,
            tolerance: HELD_OUT_TOLERANCE,
        };
        let mut held_out_perplexity = None;
        if held.tokens() > 0 {
            held_out_perplexity = Some(fit.model.perplexity(observed, held, &mixture, threads));
            // Words that only held out documents have need counts too.
            let all = self.all(of);
            fit = match &of.workers {
                Some((_, workers)) => fit.over_on(all, params, workers)?,
                None => fit.over(all, params, threads),
            };
        }
        if let Some(epoch) = last {
            progress((epoch, epoch.index + 1));
        }
        let report = ModelReport {
            kind: of.kind,
            seed: params.get().seed,
            fit_s: started.elapsed().as_secs_f64(),
            documents: train.documents(),
            tokens: train.tokens(),
            vocabulary: train.vocabulary(),
            held_out_perplexity,
            log_likelihood,
            objective,
        };
        Ok((report, fit))
    }
}
