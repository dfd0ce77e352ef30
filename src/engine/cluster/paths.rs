//! What a worker does of a plan: known operators, on files of the warehouse and its own folder.
//!
//! A driver is believed because it has the key of the pool; still a plan that leads elsewhere is refused.

use std::path::Path;

use ballista_core::execution_plans::ShuffleReaderExec;
use ballista_core::execution_plans::ShuffleWriterExec;
use ballista_core::execution_plans::SortShuffleWriterExec;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;

use crate::engine::cluster::lazy::is_plain;
use crate::engine::ingest::IngestSpec;
use crate::engine::task;
use crate::engine::task::TaskExec;
use crate::engine::task::TaskSpec;
use crate::engine::task::refused;
use crate::store::Store;

/// Refuses a plan that has an operator that no plan of ours has, or a path that leaves the warehouse.
pub(super) fn check(store: &Store, plan: &dyn ExecutionPlan) -> Result<(), DataFusionError> {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        check_source(store, source)?;
    } else if let Some(task) = plan.downcast_ref::<TaskExec>() {
        if let TaskSpec::Ingest(spec) = task.spec() {
            check_outputs(store, spec)?;
        }
        for path in task.spec().files() {
            check_path(store.root(), Path::new(path))?;
        }
    } else if let Some(reader) = plan.downcast_ref::<ShuffleReaderExec>() {
        let places = reader.partition.iter().flatten();
        for place in places {
            check_job(place.partition_id.job_id.as_str())?;
        }
    } else if let Some(writer) = plan.downcast_ref::<ShuffleWriterExec>() {
        check_job(writer.job_id().as_str())?;
    } else if let Some(writer) = plan.downcast_ref::<SortShuffleWriterExec>() {
        check_job(writer.job_id().as_str())?;
    } else if !is_known(plan) {
        return Err(refused(&format!("operator {}", plan.name())));
    }
    for child in plan.children() {
        check(store, child.as_ref())?;
    }
    Ok(())
}

fn is_known(plan: &dyn ExecutionPlan) -> bool {
    plan.downcast_ref::<AggregateExec>().is_some()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some()
        || plan.downcast_ref::<ProjectionExec>().is_some()
        || plan.downcast_ref::<RepartitionExec>().is_some()
}

fn check_source(store: &Store, source: &DataSourceExec) -> Result<(), DataFusionError> {
    let source = source.data_source();
    if let Some(scan) = source.downcast_ref::<FileScanConfig>() {
        let own = store.objects().map_or("file:///", |(url, _)| url);
        if scan.object_store_url.as_str().trim_end_matches('/') != own.trim_end_matches('/') {
            return Err(refused(scan.object_store_url.as_str()));
        }
        let files = scan.file_groups.iter().flat_map(|group| group.iter());
        for file in files {
            let path = format!("/{}", file.object_meta.location);
            check_path(store.root(), Path::new(&path))?;
        }
        return Ok(());
    }
    match source.downcast_ref::<MemorySourceConfig>() {
        // Splits, whose files are checked one by one when they are read.
        Some(_) => Ok(()),
        None => Err(refused("a source that is neither files nor splits")),
    }
}

/// Table files go to the staging folder of a run.
fn check_outputs(store: &Store, spec: &IngestSpec) -> Result<(), DataFusionError> {
    let is_hash = |byte: u8| byte.is_ascii_hexdigit();
    if !spec.tag.bytes().all(is_hash) {
        return Err(refused(&format!("tag {}", spec.tag)));
    }
    let folder = spec.deliver.as_ref().unwrap_or(&spec.staging);
    check_path(&store.work_area().join("runs"), Path::new(folder))
}

/// Folders of shuffles are made of the names of jobs.
fn check_job(job: &str) -> Result<(), DataFusionError> {
    match is_plain(job) {
        true => Ok(()),
        false => Err(refused(&format!("job {job}"))),
    }
}

fn check_path(root: &Path, path: &Path) -> Result<(), DataFusionError> {
    match task::is_below(root, path) {
        true => Ok(()),
        false => Err(refused(&path.display().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use datafusion::datasource::listing::PartitionedFile;
    use datafusion::datasource::object_store::ObjectStoreUrl;
    use datafusion::datasource::physical_plan::FileScanConfigBuilder;
    use datafusion::datasource::physical_plan::ParquetSource;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;
    use crate::config::EventTime;
    use crate::engine::fold::FoldSpec;
    use crate::engine::probe::Pairs;
    use crate::engine::probe::ProbeSpec;
    use crate::engine::score::ScoreSpec;
    use crate::engine::words::WordsSpec;

    const ROOT: &str = "/data/spot";
    const RUN: &str = "/data/spot/.klieg/runs/flow-20160708/1";
    const CORPUS: &str = "/data/spot/.klieg/runs/flow-20160708/1/shared/corpus";

    fn refused(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
        let store = Store::local(Path::new(ROOT));
        check(&store, plan.as_ref())
            .err()
            .map(|error| error.to_string())
    }

    fn scan(url: &str, path: &str) -> Arc<dyn ExecutionPlan> {
        let source = Arc::new(ParquetSource::new(task::text_schema()));
        let url = ObjectStoreUrl::parse(url).expect("a URL");
        let scan = FileScanConfigBuilder::new(url, source);
        DataSourceExec::from_data_source(scan.with_file(PartitionedFile::new(path, 1)).build())
    }

    fn task_of(spec: TaskSpec) -> Arc<dyn ExecutionPlan> {
        let input = MemorySourceConfig::try_new_exec(&[vec![]], task::text_schema(), None);
        Arc::new(TaskExec::new(spec, input.expect("no rows")))
    }

    /// An E-step, scores and a look-up that read a file.
    fn of_file(path: &str) -> [Arc<dyn ExecutionPlan>; 3] {
        let fold = FoldSpec {
            corpus: CORPUS.to_owned(),
            topics: path.to_owned(),
            width: 20,
            document_pseudo_count: 0,
            weight: 0,
            tokens: 0,
        };
        let score = ScoreSpec {
            corpus: path.to_owned(),
            topics: CORPUS.to_owned(),
            document_pseudo_count: 0,
        };
        let words = WordsSpec { compat_spot: false };
        let probe = ProbeSpec::new(words, Pairs::File(path.to_owned()));
        let specs = [
            TaskSpec::Fold(fold),
            TaskSpec::Score(score),
            TaskSpec::Probe(probe),
        ];
        specs.map(task_of)
    }

    fn ingest(deliver: Option<&str>, staging: &str, tag: &str) -> Arc<dyn ExecutionPlan> {
        let spec = IngestSpec {
            start_ms: 0,
            end_ms: 1,
            offsets: Vec::new(),
            has_hour_folders: true,
            event_time: EventTime::Received,
            staging: staging.to_owned(),
            deliver: deliver.map(str::to_owned),
            tag: tag.to_owned(),
            threads: NonZeroUsize::MIN,
        };
        task_of(TaskSpec::Ingest(spec))
    }

    #[test]
    fn plans_stay_in_the_warehouse() {
        let within = [
            scan("file:///", "data/spot/flow/hive/part.parquet"),
            ingest(Some(RUN), "/anywhere", "0a1b"),
            ingest(None, RUN, "0a1b"),
        ];
        for plan in within.iter().chain(&of_file(CORPUS)) {
            assert_eq!(refused(plan), None, "{plan:?}");
        }
        let without = [
            scan("file:///", "data/spot-of-others/part.parquet"),
            scan("file:///", "etc/shadow"),
            scan("hdfs://elsewhere/", "data/spot/flow/hive/part.parquet"),
            ingest(Some("/data/spot/flow/hive"), "/anywhere", "0a1b"),
            ingest(Some("/data/spot/.klieg/runs/../../../x"), RUN, "0a1b"),
            ingest(None, "/etc/cron.d", "0a1b"),
            ingest(Some(RUN), RUN, "../0a1b"),
        ];
        let strange = ["/etc/shadow", "/data/spot/.klieg/../../x"].map(of_file);
        for plan in without.iter().chain(strange.as_flattened()) {
            let text = refused(plan).unwrap_or_default();
            assert!(text.contains("refused by the worker"), "{plan:?}: {text}");
        }
    }

    #[test]
    fn names_of_jobs_are_no_paths() {
        for (job, is_refused) in [("a1B2c3", false), ("../../etc", true), ("", true)] {
            let splits = MemorySourceConfig::try_new_exec(&[vec![]], task::text_schema(), None);
            let splits = splits.expect("no rows");
            let writer = ShuffleWriterExec::try_new(job.into(), 1, splits, String::new());
            let plan: Arc<dyn ExecutionPlan> = Arc::new(writer.expect("a plan"));
            assert_eq!(refused(&plan).is_some(), is_refused, "{job}");
        }
    }

    #[test]
    fn operators_that_no_plan_has_are_refused_at_any_depth() {
        let other = Arc::new(EmptyExec::new(task::text_schema()));
        let plan: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(other));
        let text = refused(&plan).unwrap_or_default();
        assert!(text.contains("operator EmptyExec"), "{text}");
    }
}
