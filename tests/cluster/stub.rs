//! A scheduler that says what it is told to say: what a job's client makes of it, and that a run which is stopped cancels its job.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ballista_core::serde::protobuf::job_status::Status as Job;
use ballista_core::serde::protobuf::scheduler_grpc_server::{SchedulerGrpc, SchedulerGrpcServer};
use ballista_core::serde::protobuf::*;
use datafusion::arrow::datatypes::Schema;
use datafusion::physical_plan::empty::EmptyExec;
use dedupe::cluster::ballista;
use dedupe::error::Error;
use dedupe::options::IngestOptions;
use dedupe::report::Progress;
use futures::Stream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::scene::*;
use crate::story::*;

/// What it says when asked how a job is; the last of it for ever.
type Answers = VecDeque<Result<Option<Job>, Status>>;

#[derive(Clone)]
struct Stub {
    version: &'static str,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<usize>>,
    cancelled: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn new(answers: impl IntoIterator<Item = Result<Option<Job>, Status>>) -> Self {
        Self {
            version: ballista_core::BALLISTA_VERSION,
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
            cancelled: Arc::default(),
        }
    }

    /// Serves on a free port.
    fn start(&self) -> String {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", incoming.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(SchedulerGrpcServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        url
    }

    fn cancelled(&self) -> Vec<String> {
        self.cancelled.lock().unwrap().clone()
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn unexpected<T>() -> Answer<T> {
    Err(Status::unimplemented("a client has no use for it"))
}

#[async_trait::async_trait]
impl SchedulerGrpc for Stub {
    type ExecuteQueryPushStream = Pin<Box<dyn Stream<Item = Result<GetJobStatusResult, Status>> + Send>>;

    async fn execute_query(&self, request: Request<ExecuteQueryParams>) -> Answer<ExecuteQueryResult> {
        let session_id = request.into_inner().session_id;
        let taken = ExecuteQuerySuccessResult { job_id: "the-job".into(), session_id };
        let mut response = Response::new(ExecuteQueryResult {
            operation_id: String::new(),
            result: Some(execute_query_result::Result::Success(taken)),
        });
        response.metadata_mut().insert("ballista-version", self.version.parse().unwrap());
        Ok(response)
    }

    async fn get_job_status(&self, request: Request<GetJobStatusParams>) -> Answer<GetJobStatusResult> {
        *self.asked.lock().unwrap() += 1;
        let job_id = request.into_inner().job_id;
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let status =
            answer.unwrap()?.map(|status| JobStatus { job_id, status: Some(status), ..Default::default() });
        Ok(Response::new(GetJobStatusResult { status, flight_proxy: None }))
    }

    async fn cancel_job(&self, request: Request<CancelJobParams>) -> Answer<CancelJobResult> {
        self.cancelled.lock().unwrap().push(request.into_inner().job_id);
        Ok(Response::new(CancelJobResult { cancelled: true }))
    }

    async fn execute_query_push(
        &self,
        _: Request<ExecuteQueryParams>,
    ) -> Answer<Self::ExecuteQueryPushStream> {
        unexpected()
    }
    async fn poll_work(&self, _: Request<PollWorkParams>) -> Answer<PollWorkResult> {
        unexpected()
    }
    async fn register_executor(&self, _: Request<RegisterExecutorParams>) -> Answer<RegisterExecutorResult> {
        unexpected()
    }
    async fn heart_beat_from_executor(&self, _: Request<HeartBeatParams>) -> Answer<HeartBeatResult> {
        unexpected()
    }
    async fn update_task_status(&self, _: Request<UpdateTaskStatusParams>) -> Answer<UpdateTaskStatusResult> {
        unexpected()
    }
    async fn create_update_session(
        &self,
        _: Request<CreateUpdateSessionParams>,
    ) -> Answer<CreateUpdateSessionResult> {
        unexpected()
    }
    async fn remove_session(&self, _: Request<RemoveSessionParams>) -> Answer<RemoveSessionResult> {
        unexpected()
    }
    async fn get_job_metrics(&self, _: Request<GetJobMetricsParams>) -> Answer<GetJobMetricsResult> {
        unexpected()
    }
    async fn executor_stopped(&self, _: Request<ExecutorStoppedParams>) -> Answer<ExecutorStoppedResult> {
        unexpected()
    }
    async fn clean_job_data(&self, _: Request<CleanJobDataParams>) -> Answer<CleanJobDataResult> {
        unexpected()
    }
}

fn running() -> Job {
    Job::Running(RunningJob::default())
}

/// How a job that does nothing ends on that scheduler.
async fn ends(stub: &Stub) -> Result<usize, String> {
    let plan = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
    ballista::run(&stub.start(), plan).await.map(|batches| batches.len()).map_err(|error| error.to_string())
}

#[test]
fn a_job_is_followed_to_its_end() {
    block_on(async {
        let away = || Err(Status::unavailable("away"));
        let done = || Ok(Some(Job::Successful(SuccessfulJob::default())));
        // Neither a scheduler that does not know the job yet nor one that is away for a moment is the end of it.
        let stub = Stub::new([
            Ok(None),
            away(),
            Ok(Some(Job::Queued(QueuedJob::default()))),
            away(),
            Ok(Some(running())),
            away(),
            done(),
        ]);
        assert_eq!(ends(&stub).await, Ok(0));
        assert_eq!(*stub.asked.lock().unwrap(), 7);
        let failed = Job::Failed(FailedJob { error: "out of luck".into(), ..FailedJob::default() });
        let error = ends(&Stub::new([Ok(Some(running())), Ok(Some(failed))])).await.unwrap_err();
        assert!(error.contains("the-job") && error.contains("out of luck"), "{error}");
        // One that was started again would never say anything else.
        let error = ends(&Stub::new([Ok(Some(running())), Ok(None)])).await.unwrap_err();
        assert!(error.contains("does not know job the-job any more"), "{error}");
    });
}

#[test]
fn a_scheduler_of_another_major_version_gets_no_job() {
    block_on(async {
        let mut stub = Stub::new([Ok(Some(running()))]);
        stub.version = "54.0.0";
        let error = ends(&stub).await.unwrap_err();
        assert!(error.contains("54.0.0"), "{error}");
        assert_eq!(stub.cancelled(), ["the-job"]);
    });
}

#[test]
fn a_run_that_is_stopped_cancels_its_job_and_changes_nothing() {
    block_on(async {
        let stub = Stub::new([Ok(Some(running()))]);
        let sources = Sources::of(&vec![vec![rows(0..10, 0)]]);
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("t").to_str().unwrap().to_owned();
        let mut options = IngestOptions::default();
        options.key = Some(vec!["id".into()]);
        let (given, progress, url) = ([sources.path().to_owned()], Progress::default(), stub.start());
        let stop = async {
            while *stub.asked.lock().unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            progress.cancel();
        };
        let (ended, ()) = tokio::join!(ballista::ingest(&url, 2, &given, &table, &options, &progress), stop);
        assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
        assert_eq!(stub.cancelled(), ["the-job"]);
        assert!(!folder.path().join("t/data").exists());
    });
}
