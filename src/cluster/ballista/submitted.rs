//! One job of a Ballista scheduler's: submitted, followed to its end, cancelled if it is to stop, and what came out of it fetched.
//!
//! Ballista's own client keeps the ids of its jobs to itself, and without its id a job cannot be cancelled.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use ballista_core::client::BallistaClient;
use ballista_core::config::BallistaConfig;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::get_job_status_result::FlightProxy;
use ballista_core::serde::protobuf::job_status::Status;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, GetJobStatusResult, KeyValuePair,
    PartitionLocation, execute_query_result,
};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::{BALLISTA_VERSION, version};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::{StreamExt, TryStreamExt, stream};
use tonic::transport::Channel;
use url::Url;

use super::{codec, config};
use crate::random;

/// How often it is asked how the job is.
const ASK: Duration = Duration::from_millis(100);

/// So often in a row nothing may be heard of the job, from a scheduler that is away or does not know it yet.
const SILENT: usize = 100;

/// How long a scheduler may take to hear that a job is cancelled.
const CANCEL: Duration = Duration::from_secs(3);

/// How many results are fetched at a time.
const FETCHES: usize = 8;

type Scheduler = SchedulerGrpcClient<Channel>;

/// A job that the scheduler took.
pub(super) struct Submitted {
    scheduler: Scheduler,
    url: String,
    job: String,
}

impl Submitted {
    /// Gives the scheduler at `url` a plan to run.
    pub(super) async fn new(url: &str, plan: Arc<dyn ExecutionPlan>) -> Result<Self> {
        let settings = BallistaConfig::default();
        let endpoint = create_grpc_client_endpoint(url.to_owned(), Some(&GrpcClientConfig::from(&settings)));
        let connection = endpoint.map_err(unreached)?.connect().await.map_err(unreached)?;
        let limit = settings.grpc_client_max_message_size();
        let mut scheduler =
            Scheduler::new(connection).max_encoding_message_size(limit).max_decoding_message_size(limit);
        let mut request = tonic::Request::new(query(plan)?);
        version::insert_version_header(request.metadata_mut());
        let answer = scheduler.execute_query(request).await.map_err(refused)?;
        let theirs = version::version_from_metadata(answer.metadata()).map(str::to_owned);
        match answer.into_inner().result {
            Some(execute_query_result::Result::Success(taken)) => {
                let mut job = Self { scheduler, url: url.to_owned(), job: taken.job_id };
                if let Err(reason) = version::check_compatibility(Some(BALLISTA_VERSION), theirs.as_deref()) {
                    job.cancel().await;
                    return Err(DataFusionError::Execution(reason));
                }
                Ok(job)
            }
            failure => {
                Err(DataFusionError::Execution(format!("the scheduler does not take the job: {failure:?}")))
            }
        }
    }

    /// Waits until the job is over, and fetches what came out of it.
    pub(super) async fn results(&mut self) -> Result<Vec<RecordBatch>> {
        let (mut known, mut silent) = (false, 0);
        loop {
            let asked = GetJobStatusParams { job_id: self.job.clone() };
            let answer = self.scheduler.get_job_status(asked).await.map(tonic::Response::into_inner);
            match answer {
                Ok(GetJobStatusResult { status: Some(status), flight_proxy }) => match status.status {
                    Some(Status::Failed(failed)) => {
                        return Err(DataFusionError::Execution(format!(
                            "job {}: {}",
                            self.job, failed.error
                        )));
                    }
                    Some(Status::Successful(done)) => {
                        let url = &self.url;
                        let fetched = done
                            .partition_location
                            .into_iter()
                            .map(|at| fetch(at, url, flight_proxy.as_ref()));
                        let batches: Vec<Vec<RecordBatch>> =
                            stream::iter(fetched.collect::<Vec<_>>()).buffered(FETCHES).try_collect().await?;
                        return Ok(batches.into_iter().flatten().collect());
                    }
                    Some(Status::Queued(_) | Status::Running(_)) | None => (known, silent) = (true, 0),
                },
                Ok(_) if known || silent >= SILENT => {
                    let reason = format!(
                        "the scheduler does not know job {} any more: was it started again?",
                        self.job
                    );
                    return Err(DataFusionError::Execution(reason));
                }
                Err(error) if silent >= SILENT => return Err(refused(error)),
                Ok(_) | Err(_) => silent += 1,
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// Tells the scheduler that nobody waits for the job any more. If it cannot be told, the job runs to its end for nothing.
    pub(super) async fn cancel(&mut self) {
        let told = self.scheduler.cancel_job(CancelJobParams { job_id: self.job.clone() });
        match tokio::time::timeout(CANCEL, told).await {
            Ok(Ok(_)) => tracing::debug!(job = self.job, "cancelled"),
            Ok(Err(error)) => tracing::warn!(job = self.job, %error, "the job was not cancelled"),
            Err(_) => {
                tracing::warn!(job = self.job, "the job was not cancelled: the scheduler does not answer")
            }
        }
    }
}

fn query(plan: Arc<dyn ExecutionPlan>) -> Result<ExecuteQueryParams> {
    let config = config().with_target_partitions(plan.output_partitioning().partition_count());
    let mut bytes = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(plan, codec().as_ref())?.try_encode(&mut bytes)?;
    let settings = config.options().entries().into_iter();
    let identity = || random::identity().map_err(crate::operator::external);
    Ok(ExecuteQueryParams {
        query: Some(Query::PhysicalPlan(bytes)),
        settings: settings.map(|entry| KeyValuePair { key: entry.key, value: entry.value }).collect(),
        session_id: identity()?,
        operation_id: identity()?,
    })
}

/// What one task put out, from its executor, or through whoever stands before the executors.
async fn fetch(
    at: PartitionLocation,
    scheduler: &str,
    proxy: Option<&FlightProxy>,
) -> Result<Vec<RecordBatch>> {
    let (layout, file) = (at.layout(), at.file_id);
    let (Some(executor), Some(partition)) = (at.executor_meta, at.partition_id) else {
        return Err(DataFusionError::Execution("the scheduler does not say where a task's output is".into()));
    };
    let port = u16::try_from(executor.port).map_err(|e| DataFusionError::External(e.into()))?;
    let through = match proxy {
        Some(FlightProxy::External(address)) => Some(format!("http://{address}")),
        Some(FlightProxy::Local(true)) => Some(scheduler.to_owned()),
        Some(FlightProxy::Local(false)) | None => None,
    };
    let (host, at) = match through {
        Some(through) => host_and_port(&through)?,
        None => (executor.host.clone(), port),
    };
    let settings = GrpcClientConfig::from(&BallistaConfig::default());
    let (limit, retries, pause) =
        (settings.max_message_size, settings.io_retries_times, settings.io_retry_wait_time_ms);
    let client = BallistaClient::try_new(&host, at, limit, settings.use_tls, None, retries, pause, 0, 0);
    let mut client = client.await.map_err(BallistaError::into_datafusion)?;
    let partition = partition.into();
    let fetched =
        client.fetch_partition_proxied(&executor.id, &partition, file, layout, &executor.host, port, true);
    fetched.await.map_err(BallistaError::into_datafusion)?.try_collect().await
}

fn host_and_port(url: &str) -> Result<(String, u16)> {
    let parsed = Url::parse(url).ok();
    let found = parsed.and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
    found.ok_or_else(|| DataFusionError::Execution(format!("{url} names no host and port")))
}

fn unreached(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn refused(error: tonic::Status) -> DataFusionError {
    DataFusionError::Execution(format!("{}: {}", error.code(), error.message()))
}
