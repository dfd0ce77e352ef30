//! Trains the models of a day and stages them.

use std::sync::Arc;

use datafusion::error::DataFusionError;
use tokio::runtime::Handle;

use crate::column::Column;
use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::Group;
use crate::detect::model_file;
use crate::detect::models::Elsewhere;
use crate::detect::models::Kind;
use crate::detect::models::ModelEpoch;
use crate::detect::models::ModelError;
use crate::detect::models::ModelReport;
use crate::detect::models::Scores;
use crate::detect::models::Trainer;
use crate::detect::ranking;
use crate::engine::Progress;
use crate::engine::training::Training;
use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Corpus;
use crate::ml::lda::Fit;
use crate::step;
use crate::step::Context;
use crate::step::StepError;
use crate::step::suspicious::MODEL;

/// What training gives.
pub(super) struct Trained {
    pub(super) scores: Scores,
    pub(super) models: Vec<ModelReport>,
    /// The first presence model, which explains.
    pub(super) first: Option<(Fit, CheckedLdaParams)>,
}

/// Workers that train models of a run, by files of its staging folder.
struct OnWorkers<'a> {
    context: &'a Context<'a>,
    progress: &'a Arc<Progress>,
    runtime: Handle,
}

impl<'a> Elsewhere for OnWorkers<'a> {
    type Workers = Training<'a>;
    type Error = StepError;

    fn take(&self, name: &str, corpus: &Corpus) -> Result<Training<'a>, StepError> {
        let Context { engine, store, .. } = *self.context;
        let name = format!("{name}.corpus");
        let shared = self.context.share(&name)?;
        let local = self.context.staging.folder(step::SHARED)?.join(&name);
        let files = (local.as_path(), shared);
        let runtime = self.runtime.clone();
        Training::try_new((engine, runtime), store, files, corpus, self.progress)
            .map_err(StepError::of_plan)
    }

    fn error(error: DataFusionError) -> StepError {
        StepError::of_plan(error)
    }
}

/// Trains and stages the models; shares of hosts take their place where there are none. Large days are trained on workers, where
/// there are some.
pub(super) fn train(context: &Context<'_>, corpus: &DayCorpus) -> Result<Trained, StepError> {
    let settings = &context.config.suspicious;
    // There is nothing to learn from an empty day.
    if !settings.has_model || corpus.groups.is_empty() {
        return untrained(corpus);
    }
    let trainer = Trainer {
        corpus,
        settings,
        seed: context.config.seed,
        threads: context.config.threads,
    };
    let folder = context.staging.folder(MODEL)?;
    let params = trainer
        .params(Kind::Presence, 0)
        .map_err(ModelError::from)?;
    let (mut first, mut kept) = (None, 0);
    let models = (settings.models + settings.token_models) as u64;
    let mut keep = |kind: Kind, model: usize, fit: Fit| {
        model_file::write(&folder, kind, model, &fit, corpus)?;
        kept += 1;
        context
            .events
            .progress("suspicious: scoring by each model", kept, models, "");
        if kind == Kind::Presence && model == 0 {
            first = Some((fit, params));
        }
        Ok(())
    };
    let progress = Arc::new(Progress::default());
    let workers = OnWorkers {
        context,
        progress: &progress,
        runtime: Handle::current(),
    };
    let is_large = corpus.groups.len() as u64 >= context.config.cluster.train_from;
    let workers = (is_large && context.engine.shape().has_workers).then_some(&workers);
    let show = |epoch: ModelEpoch| show(context, epoch);
    let how: (_, &(dyn Fn(ModelEpoch) + Sync)) = (workers, &show);
    let trained = context.watched_beside("suspicious: training", &progress, || {
        trainer.train(how, &mut keep)
    });
    context.work.note("training", &progress);
    let (scores, models) = trained?;
    Ok(Trained {
        scores,
        models,
        first,
    })
}

/// Shares of hosts in the place of scores.
fn untrained(corpus: &DayCorpus) -> Result<Trained, StepError> {
    let share = |group: &Group| {
        let hosts = corpus.hosts_of_word[group.word as usize];
        ranking::host_share(hosts, corpus.hosts())
    };
    let shares = || Column::of(corpus.room(), corpus.groups.iter().map(share));
    Ok(Trained {
        scores: Scores {
            presence: shares()?,
            tokens: shares()?,
        },
        models: Vec::new(),
        first: None,
    })
}

fn show(context: &Context<'_>, epoch: ModelEpoch) {
    let ModelEpoch {
        kind,
        model: (model, models),
        epoch: (epoch, epochs),
    } = epoch;
    let perplexity = (-epoch.log_likelihood_per_token).exp();
    let label = format!(
        "suspicious: {} model {} of {models}",
        kind.name(),
        model + 1
    );
    let done = u64::from(epoch.index) + 1;
    let note = format!("training perplexity {perplexity:.1}");
    context
        .events
        .progress(&label, done, u64::from(epochs), &note);
}
