//! Ballista as it is run: a scheduler and executors as processes of their own, one of which is killed in the middle of a job.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ballista_executor::executor_process::ExecutorProcessConfig;
use ballista_scheduler::config::SchedulerConfig;
use dedupe::cluster::ballista;
use dedupe::ledger::Ledger;
use dedupe::options::IngestOptions;
use dedupe::report::Progress;
use dedupe::store::Store;

use crate::scene::*;
use crate::story::*;

/// What a process of this test is: `scheduler PORT` or `executor PORT SCHEDULER`.
const ROLE: &str = "DEDUPE_TEST_CLUSTER_ROLE";

/// A folder for what the processes log, as `RUST_LOG` says, if one is wanted.
const LOGS: &str = "DEDUPE_TEST_CLUSTER_LOGS";

/// Not a test: what the processes run.
#[test]
#[ignore = "it is run by another test, as a process of a cluster"]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    if let Ok(folder) = std::env::var(LOGS) {
        let file = std::fs::File::create(format!("{folder}/{}.log", role.replace(' ', "-"))).unwrap();
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(file).init();
    }
    let role: Vec<&str> = role.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().unwrap();
    block_on(async {
        match role.as_slice() {
            ["scheduler", own] => {
                let settings = SchedulerConfig {
                    bind_host: "127.0.0.1".into(),
                    bind_port: port(own),
                    // Executors of which every core is busy are heard of every five seconds.
                    executor_timeout_seconds: 8,
                    expire_dead_executor_interval_seconds: 1,
                    ..SchedulerConfig::default()
                };
                ballista::scheduler(settings).await.unwrap();
            }
            ["executor", own, scheduler] => {
                let settings = ExecutorProcessConfig {
                    port: port(own),
                    grpc_port: port(own) + 1,
                    scheduler_host: "127.0.0.1".into(),
                    scheduler_port: port(scheduler),
                    scheduler_connect_timeout_seconds: 20,
                    vcores: 1,
                    ..ExecutorProcessConfig::default()
                };
                ballista::executor(settings).await.unwrap();
            }
            other => panic!("no such role: {other:?}"),
        }
    });
}

/// A process that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(role: String) -> Self {
        let test = std::env::current_exe().unwrap();
        let mut command = Command::new(test);
        command.args(["--exact", "killed::role", "--ignored", "--nocapture"]).env(ROLE, role);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first of two neighbouring ports that are free.
fn ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn an_executor_killed_in_mid_job_costs_nothing_but_time() {
    let scheduler_port = ports();
    let _scheduler = Process::start(format!("scheduler {scheduler_port}"));
    let start = |port: u16| Process::start(format!("executor {port} {scheduler_port}"));
    let (first, second) = (ports(), ports());
    let (mut doomed, _other) = (start(first), start(second));
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table").to_str().unwrap().to_owned();
    let files: Files = (0..8).map(|file| vec![rows(file * 20_000..file * 20_000 + 40_000, file)]).collect();
    let sources = Sources::of(&files);
    block_on(async {
        let up = async {
            while ![scheduler_port, first, second].iter().all(|port| listens(*port)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), up).await.expect("the cluster does not come up");
        let url = format!("http://127.0.0.1:{scheduler_port}");
        let mut options = IngestOptions::default();
        options.memory = 16 << 20;
        options.key = Some(vec!["id".into()]);
        let given = [sources.path().to_owned()];
        let run = async {
            ballista::ingest(&url, 12, &given, &table, &options, &Progress::default()).await.unwrap()
        };
        // Once anything is staged the job is in its second half, and both executors hold parts of the shuffle.
        let data = folder.path().join("table/data");
        let kill = async {
            while std::fs::read_dir(&data).map_or(true, |mut listed| listed.next().is_none()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let staged = std::fs::read_dir(&data).unwrap().count();
            tokio::task::spawn_blocking(move || doomed.kill()).await.unwrap();
            staged
        };
        let (report, staged) = tokio::join!(run, kill);
        assert!(staged < 12, "the job was over before its executor was killed");
        assert_eq!((report.rows.read, report.rows.accepted), (320_000, 180_000));
        let mut ledger = Ledger::open(Store::open(&table, &[]).unwrap()).await.unwrap().unwrap();
        ledger.read_files().await.unwrap();
        let verified = dedupe::upkeep::verify::verify(&ledger, &Default::default()).await.unwrap();
        assert_eq!(verified.problems, Vec::<String>::new());
        let held: u64 = ledger.state().files().unwrap().values().map(|file| file.item.rows).sum();
        assert_eq!(held, 180_000);
    });
}
