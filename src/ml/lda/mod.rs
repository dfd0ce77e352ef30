//! Latent Dirichlet allocation by count-weighted MAP expectation maximisation (Asuncion, Welling, Smyth, Teh, UAI 2009), the
//! fixed point that Spark MLlib's `em` iterates, in multiplicative form: no state for each (document, word) pair.
//!
//! ```text
//! triples (document, word, count) ─► Corpus: virtual shards by hash of the document
//! epoch:  φ ─► shards on threads, or on workers (`elsewhere`): gather φ rows, sweep documents, R rows ─► S = φ·R, added in exact arithmetic ─► φ
//! ```
//! Letters are the paper's: φ word probabilities (words × topics, row-major), θ topic mix of a document, n counts, K topics,
//! V words; a = α − 1 and b = η − 1 are the pseudo-counts. S holds the expected counts of each word and topic.
//!
//! **Same bits everywhere.** A document's shard is a hash of its key, documents of a shard are sorted by key, and a shard's
//! contribution to S is rounded to a multiple of 2^−20 (of more where there are more than 2^32 tokens), of which f64 sums are exact: neither the number of threads
//! nor the order of the shards nor the order of the input can change a bit. Sums over topics have one fixed order of lanes, and
//! where a product is added it is fused, with or without an instruction for that, so they do not depend on the processor either.

mod corpus;
mod counts;
mod elsewhere;
mod fit;
mod kernel;
mod merge;
mod model;
mod params;
mod score;
mod shard;
mod simd;
mod start;

pub use corpus::Corpus;
pub use corpus::CorpusError;
pub use elsewhere::Damaged;
pub use elsewhere::EStep;
pub use elsewhere::ScoreBy;
pub use elsewhere::ShardData;
pub use elsewhere::Sums;
pub use elsewhere::Topics;
pub use elsewhere::Workers;
pub use fit::Epoch;
pub use fit::Fit;
pub use fit::fit;
pub use fit::fit_on;
pub use model::LdaModel;
pub use model::MixtureParams;
pub use params::CheckedLdaParams;
pub use params::LdaParams;
pub use params::Optimizer;
pub use params::ParamsError;
