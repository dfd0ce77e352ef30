//! Plans in this process.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::StreamExt as _;

use crate::engine::Engine;
use crate::engine::PlanOf;
use crate::engine::Progress;
use crate::engine::Shape;
use crate::engine::Sink;
use crate::engine::session;
use crate::store::Store;

/// Runs plans on threads of this process.
pub struct Local {
    session: SessionContext,
    threads: NonZeroUsize,
}

impl Local {
    /// Makes an engine whose plans take at most `memory_bytes`, spill into `spill_dir`, and read and write a warehouse.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn try_new(
        threads: NonZeroUsize,
        memory_bytes: u64,
        spill_dir: &Path,
        store: &Store,
    ) -> Result<Self, DataFusionError> {
        let config = session::config(store, threads.get());
        let runtime = session::runtime(store, memory_bytes, spill_dir)?;
        Ok(Self {
            session: SessionContext::new_with_config_rt(config, runtime),
            threads,
        })
    }
}

#[async_trait]
impl Engine for Local {
    fn session(&self) -> SessionContext {
        self.session.clone()
    }

    fn shape(&self) -> Shape {
        Shape {
            partitions: self.threads.get(),
            split_threads: self.threads,
            has_workers: false,
        }
    }

    async fn run(
        &self,
        plan: &PlanOf<'_>,
        sink: &mut dyn Sink,
        progress: &Arc<Progress>,
    ) -> Result<u32, DataFusionError> {
        sink.begin();
        let task = self.session.task_ctx();
        let config = task.session_config().clone();
        let config = config.with_extension(Arc::clone(progress));
        let task = datafusion::execution::TaskContext::default()
            .with_session_config(config)
            .with_runtime(task.runtime_env());
        let mut stream = datafusion::physical_plan::execute_stream(plan(0)?, Arc::new(task))?;
        while let Some(batch) = stream.next().await {
            sink.add(batch?)?;
        }
        Ok(0)
    }
}
