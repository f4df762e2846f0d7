//! A Ballista cluster whose scheduler and executors understand jobs of `dedupe`, for `dedupe ingest --cluster`.
//!
//! ```text
//! cluster scheduler --bind 0.0.0.0:50050
//! cluster executor  --scheduler scheduler.local:50050 --bind 0.0.0.0:50051 --host worker-1.local --work-dir /scratch
//! dedupe ingest --cluster http://scheduler.local:50050 s3://raw/2026-01-31/ --into s3://lake/events --key id
//! ```
//!
//! An executor takes two ports, the given one and the next. `docs/distributed.md` tells more.

use std::error::Error;
use std::net::SocketAddr;

use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::SchedulerConfig;
use clap::{Args, Parser};
use dedupe::cluster::ballista;

/// A scheduler or an executor of a Ballista cluster for `dedupe ingest --cluster`.
#[derive(Parser)]
enum Role {
    /// Takes jobs, and hands their tasks to executors.
    Scheduler(Scheduler),
    /// Runs tasks.
    Executor(Executor),
}

#[derive(Args)]
struct Scheduler {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:50050")]
    bind: SocketAddr,
    /// An executor that is silent for so many seconds is taken for lost; what it did is done again. One that is busy is heard of every
    /// five seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(8..))]
    lost_after: u64,
}

#[derive(Args)]
struct Executor {
    /// Host and port of the scheduler.
    #[arg(long, default_value = "127.0.0.1:50050")]
    scheduler: String,
    /// Address to listen on; the next port is taken as well.
    #[arg(long, default_value = "127.0.0.1:50051")]
    bind: SocketAddr,
    /// The name by which others reach this executor.
    #[arg(long)]
    host: Option<String>,
    /// Tasks that run at a time [default: one a processor]
    #[arg(long)]
    tasks: Option<usize>,
    /// Memory for all of them together, in bytes [default: seven tenths of the machine's]
    #[arg(long)]
    memory: Option<u64>,
    /// Folder for the shuffle [default: a temporary one]
    #[arg(long)]
    work_dir: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Role::parse() {
        Role::Scheduler(scheduler) => ballista::scheduler(scheduler.settings()).await?,
        Role::Executor(executor) => ballista::executor(executor.settings()?).await?,
    }
    Ok(())
}

impl Scheduler {
    fn settings(self) -> SchedulerConfig {
        SchedulerConfig {
            bind_host: self.bind.ip().to_string(),
            bind_port: self.bind.port(),
            executor_timeout_seconds: self.lost_after,
            expire_dead_executor_interval_seconds: (self.lost_after / 4).max(1),
            ..SchedulerConfig::default()
        }
    }
}

impl Executor {
    fn settings(self) -> Result<ExecutorProcessConfig, Box<dyn Error>> {
        let (host, port) = self.scheduler.rsplit_once(':').ok_or("--scheduler takes HOST:PORT")?;
        let mut settings = ExecutorProcessConfig {
            bind_host: self.bind.ip().to_string(),
            port: self.bind.port(),
            grpc_port: self.bind.port().checked_add(1).ok_or("--bind: there is no next port")?,
            external_host: self.host,
            scheduler_host: host.to_owned(),
            scheduler_port: port.parse()?,
            scheduler_connect_timeout_seconds: 60,
            memory_pool_size: self.memory,
            work_dir: self.work_dir,
            ..ExecutorProcessConfig::default()
        };
        if let Some(tasks) = self.tasks {
            settings.vcores = tasks;
        }
        Ok(settings)
    }
}
