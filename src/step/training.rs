//! Trains the models of a day and stages them.

use crate::detect::corpus::DayCorpus;
use crate::detect::corpus::Group;
use crate::detect::model_file;
use crate::detect::models::Kind;
use crate::detect::models::ModelEpoch;
use crate::detect::models::ModelError;
use crate::detect::models::ModelReport;
use crate::detect::models::Scores;
use crate::detect::models::Trainer;
use crate::detect::ranking;
use crate::ml::lda::CheckedLdaParams;
use crate::ml::lda::Fit;
use crate::step::Context;
use crate::step::StepError;
use crate::step::suspicious::MODEL;

/// What training gives.
#[derive(Default)]
pub(super) struct Trained {
    pub(super) scores: Scores,
    pub(super) models: Vec<ModelReport>,
    /// The first presence model, which explains.
    pub(super) first: Option<(Fit, CheckedLdaParams)>,
}

/// Trains and stages the models; shares of hosts take their place where there are none.
pub(super) fn train(context: &Context<'_>, corpus: &DayCorpus) -> Result<Trained, StepError> {
    let settings = &context.config.suspicious;
    let mut trained = Trained::default();
    // There is nothing to learn from an empty day.
    if !settings.has_model || corpus.groups.is_empty() {
        let share = |group: &Group| {
            let hosts = corpus.hosts_of_word[group.word as usize];
            ranking::host_share(hosts, corpus.hosts())
        };
        trained.scores.presence = corpus.groups.iter().map(share).collect();
        trained.scores.tokens = trained.scores.presence.clone();
        return Ok(trained);
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
    let Trained {
        scores,
        models,
        first,
    } = &mut trained;
    let mut keep = |kind: Kind, model: usize, fit: Fit| {
        model_file::write(&folder, kind, model, &fit, corpus)?;
        if kind == Kind::Presence && model == 0 {
            *first = Some((fit, params));
        }
        Ok(())
    };
    let mut progress = |epoch: ModelEpoch| show(context, epoch);
    models.extend(trainer.train(
        Kind::Presence,
        &mut scores.presence,
        &mut progress,
        &mut keep,
    )?);
    models.extend(trainer.train(Kind::Tokens, &mut scores.tokens, &mut progress, &mut keep)?);
    Ok(trained)
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
    context.events.progress(
        &label,
        done,
        u64::from(epochs),
        &format!("training perplexity {perplexity:.1}"),
    );
}
