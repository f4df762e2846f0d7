//! Jobs on [Apache DataFusion Ballista](https://datafusion.apache.org/ballista/): a scheduler, executors, and tasks that are run again
//! when they or their executor fail.
//!
//! Scheduler and executors must know [`codec`]: `examples/cluster.rs` starts such ones. [`ingest`] is `dedupe ingest --cluster`;
//! [`run`] has a scheduler run any plan of a [`Job`](super::Job)'s.

mod submitted;

use std::net::AddrParseError;
use std::sync::Arc;

use arrow::array::RecordBatch;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::error::BallistaError;
use ballista_core::extension::SessionConfigExt;
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use datafusion::error::Result as EngineResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;
use datafusion_proto::physical_plan::PhysicalExtensionCodec;
use futures::FutureExt;
use futures::future::BoxFuture;

use submitted::Submitted;

use super::codec::DedupeCodec;
use super::failure::cause;
use super::ingest::{Engine, ingest_on};
use crate::error::{Error, Result};
use crate::options::IngestOptions;
use crate::report::{IngestReport, Progress};

/// The codec that client, scheduler and executors have in common: Ballista's own, and that of a job's nodes.
pub fn codec() -> Arc<dyn PhysicalExtensionCodec> {
    Arc::new(DedupeCodec::around(Arc::new(BallistaPhysicalExtensionCodec::default())))
}

/// The settings of a session on a cluster that knows our codec.
pub fn config() -> SessionConfig {
    SessionConfig::new_with_ballista().with_ballista_physical_extension_codec(codec())
}

/// Has the scheduler at `url` run a plan, and collects what comes out of it.
pub async fn run(url: &str, plan: Arc<dyn ExecutionPlan>) -> EngineResult<Vec<RecordBatch>> {
    Submitted::new(url, plan).await?.results().await
}

/// Ingests as [`ingest`](crate::ingest::ingest) does, with the sources read and judged by the executors of the cluster whose
/// scheduler is at `url`, in so many tasks each. Sources and table must be where every executor finds them.
///
/// A run that is [cancelled](Progress::cancel) cancels its job. One whose future is dropped leaves it to run to its end, which
/// changes nothing in the table.
pub async fn ingest(
    url: &str,
    tasks: usize,
    sources: &[String],
    table: &str,
    options: &IngestOptions,
    progress: &Progress,
) -> Result<IngestReport> {
    ingest_on(&Cluster { url: url.to_owned() }, tasks, sources, table, options, progress).await
}

/// Executors ask for tasks. A scheduler that hands them out (of this version) forgets that a task no longer occupies its executor if
/// the stage was reset before the task was cancelled: after an executor died, those that are left would never be given work again.
const POLICY: TaskSchedulingPolicy = TaskSchedulingPolicy::PullStaged;

/// Serves a scheduler until it fails. Of `settings` the codec is replaced by ours, and executors are made to ask for tasks.
pub async fn scheduler(mut settings: SchedulerConfig) -> ballista_core::error::Result<()> {
    settings.scheduling_policy = POLICY;
    settings.override_physical_codec = Some(codec());
    settings.override_config_producer = Some(Arc::new(config));
    let bind = format!("{}:{}", settings.bind_host, settings.bind_port);
    let unfit = |e: AddrParseError| BallistaError::Configuration(format!("{bind}: {e}"));
    let address = bind.parse().map_err(unfit)?;
    let cluster = BallistaCluster::new_from_config(&settings).await?;
    start_server(cluster, address, Arc::new(settings)).await
}

/// Works for a scheduler until told to stop. Of `settings` the codec is replaced by ours, and it is made to ask for tasks.
pub async fn executor(mut settings: ExecutorProcessConfig) -> ballista_core::error::Result<()> {
    settings.task_scheduling_policy = POLICY;
    settings.override_physical_codec = Some(codec());
    settings.override_config_producer = Some(Arc::new(config));
    start_executor_process(Arc::new(settings)).await
}

struct Cluster {
    url: String,
}

impl Engine for Cluster {
    fn run<'a>(
        &'a self,
        plan: Arc<dyn ExecutionPlan>,
        stop: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<Vec<RecordBatch>>> {
        let failed =
            |error| cause(&error).unwrap_or_else(|| Error::store("run the job on", &self.url, error));
        async move {
            let mut job = Submitted::new(&self.url, plan).await.map_err(failed)?;
            let results = job.results();
            tokio::select! {
                results = results => return results.map_err(failed),
                () = stop => {}
            }
            job.cancel().await;
            Err(Error::Interrupted)
        }
        .boxed()
    }
}
