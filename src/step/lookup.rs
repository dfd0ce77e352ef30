//! What the step `suspicious` asks of the table: counts of words, and the flows that its lists need.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;

use crate::column::Room;
use crate::engine;
use crate::engine::Progress;
use crate::engine::probe;
use crate::engine::probe::Found;
use crate::engine::probe::Pairs;
use crate::engine::probe::ProbePair;
use crate::engine::probe::ProbeSpec;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::engine::words;
use crate::engine::words::Documents;
use crate::engine::words::WordsSpec;
use crate::step;
use crate::step::Context;
use crate::step::StepError;
use crate::step::Unit;
use crate::step::suspicious::Source;
use crate::table::flow::WORD_COLUMNS;

/// Pairs that a plan carries itself.
const PAIRS_IN_PLAN: usize = 4096;

/// Counts the words of each IP.
pub(super) async fn count(
    (context, room): (&Context<'_>, &Arc<Room>),
    table: &Source,
) -> Result<Documents, StepError> {
    if table.files.is_empty() {
        return Ok(Documents::new(room));
    }
    let spec = WordsSpec {
        compat_spot: context.config.suspicious.compat_spot,
    };
    let engine = context.engine;
    let scan = engine::scan(engine, &table.files, &WORD_COLUMNS).await?;
    let plan = words::plan_counts(spec, scan, engine.shape().partitions)?;
    let plan_of = |_| Ok(Arc::clone(&plan));
    let progress = Arc::new(Progress::default());
    let mut documents = Documents::new(room);
    let label = "suspicious: counting words";
    let run = engine.run(&plan_of, &mut documents, &progress);
    let done = context.watched(label, (table.rows, Unit::Rows), (&progress, run));
    let done = done.await;
    context.work.note("documents", &progress);
    done.map_err(StepError::of_plan)?;
    documents.finish();
    let flows = documents.flows;
    let excluded: u64 = documents.excluded.values().sum();
    check_rows("documents", flows + excluded, table)?;
    context.events.line(&format!(
        "suspicious: {flows} flows in {} groups of IP and word, {excluded} flows excluded{}",
        documents.pairs.len(),
        step::by_reason(&documents.excluded),
    ));
    Ok(documents)
}

/// Nothing may be lost or doubled on the way through a plan.
fn check_rows(what: &'static str, found: u64, table: &Source) -> Result<(), StepError> {
    let wanted = table.rows;
    match found == wanted {
        true => Ok(()),
        false => Err(StepError::Rows {
            what,
            found,
            wanted,
        }),
    }
}

/// Many pairs reach workers by a file: a plan is a message, and goes to every task.
fn place(context: &Context<'_>, pairs: Vec<ProbePair>) -> Result<Pairs, StepError> {
    if pairs.len() <= PAIRS_IN_PLAN || !context.engine.shape().has_workers {
        return Ok(Pairs::Here(pairs));
    }
    let store = context.store;
    let file = context.share("pairs.json")?;
    let text = serde_json::to_vec(&pairs).map_err(|error| store.at(&file)(error.into()))?;
    store.files().put(&file, &text).map_err(store.at(&file))?;
    Ok(Pairs::File(file.display().to_string()))
}

/// Scans the table once for the lowest flows and the flows of chosen groups.
pub(super) async fn probe_flows(
    context: &Context<'_>,
    table: &Source,
    (pairs, limit): (Vec<ProbePair>, Option<usize>),
) -> Result<Found, StepError> {
    let mut found = Found::new(limit.unwrap_or(usize::MAX));
    if table.files.is_empty() {
        return Ok(found);
    }
    let engine = context.engine;
    let scan = engine::scan(engine, &table.files, &probe::columns()).await?;
    let words = WordsSpec {
        compat_spot: context.config.suspicious.compat_spot,
    };
    let pairs = place(context, pairs)?;
    let spec = TaskSpec::Probe(ProbeSpec::new(words, pairs));
    let plan: Arc<dyn ExecutionPlan> = Arc::new(TaskExec::new(spec, scan));
    let plan_of = |_| Ok(Arc::clone(&plan));
    let progress = Arc::new(Progress::default());
    let run = engine.run(&plan_of, &mut found, &progress);
    let label = "suspicious: looking up flows";
    let done = context.watched(label, (table.rows, Unit::Rows), (&progress, run));
    let done = done.await;
    context.work.note("flows", &progress);
    done.map_err(StepError::of_plan)?;
    check_rows("flows", found.rows, table)?;
    found.cut();
    Ok(found)
}
