//! Jobs on [datafusion-distributed](https://docs.rs/datafusion-distributed): workers that are part of one's own service, without a
//! scheduler.
//!
//! Each process that is to work [serves](serve) a port; any of them, or another, is the driver, with a [`context`] that knows the
//! workers' addresses. A job that loses a worker fails as a whole: nothing was committed, run it again.
//!
//! ```no_run
//! # use dedupe::cluster::{Job, distributed};
//! # use dedupe::session::SessionOptions;
//! # use dedupe::store::Store;
//! # use dedupe::table::Table;
//! # use datafusion::prelude::{ParquetReadOptions, SessionConfig};
//! # async fn driver() -> Result<(), Box<dyn std::error::Error>> {
//! let workers = ["http://10.0.0.1:7070", "http://10.0.0.2:7070"].map(|url| url.parse()).into_iter().collect::<Result<Vec<_>, _>>()?;
//! let context = distributed::context(SessionConfig::new(), workers);
//! let landed = context.read_parquet("/shared/landing", ParquetReadOptions::default()).await?;
//!
//! let table = Table::open(Store::open("s3://lake/events", &[])?).await?.ok_or("there is no such table")?;
//! let job = Job::begin(&table, landed.schema().as_arrow(), SessionOptions::default(), Vec::new()).await?;
//! let staged = job.stage(landed)?.collect().await?;
//! println!("{:?}", job.commit(&staged).await?.rows);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{
    DistributedExt, SessionStateBuilderExt, Worker, WorkerQueryContext, WorkerResolver,
};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use url::Url;

use super::codec::DedupeCodec;
use super::logical::StagePlanner;

/// The workers, always the same.
struct Workers(Vec<Url>);

impl WorkerResolver for Workers {
    fn get_urls(&self) -> Result<Vec<Url>> {
        Ok(self.0.clone())
    }
}

/// What a driver's state needs besides a [`WorkerResolver`]: the planner of jobs and of their distribution, and the codec.
pub fn driver(state: SessionStateBuilder) -> SessionStateBuilder {
    state
        .with_query_planner(Arc::new(StagePlanner))
        .with_distributed_planner()
        .with_distributed_user_codec(DedupeCodec::new())
}

/// A context whose plans run on the workers at these addresses.
pub fn context(config: SessionConfig, workers: Vec<Url>) -> SessionContext {
    let state = SessionStateBuilder::new().with_default_features().with_config(config);
    let state = driver(state.with_distributed_worker_resolver(Workers(workers)));
    SessionContext::new_with_state(state.build())
}

/// A worker that understands jobs, to be served as part of a tonic server.
pub fn worker() -> Worker {
    Worker::from_session_builder(|context: WorkerQueryContext| async move {
        Ok(context.builder.with_distributed_user_codec(DedupeCodec::new()).build())
    })
}

/// Serves a worker until the listener fails.
pub async fn serve(listener: TcpListener) -> Result<()> {
    Server::builder()
        .add_service(worker().into_worker_server())
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
        .map_err(|e| DataFusionError::External(Box::new(e)))
}
