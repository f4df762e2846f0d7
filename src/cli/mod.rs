//! The command `dedupe`: a thin face over the library, one file a command.
//!
//! Results go to standard output, everything else (errors, logs, the progress bar) to standard error. With
//! `--output json` a command prints exactly one JSON object on standard output, on failure too. How it ended is
//! told by [`Exit`], whose codes never change their meaning.

mod args;
mod bar;
mod compact;
mod completions;
mod doctor;
mod exit;
mod explain;
mod failure;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod ingest;
mod interrupt;
mod log;
mod man;
mod out;
mod outcome;
mod quarantine;
mod render;
mod screen;
mod show;
#[cfg(feature = "datafusion")]
mod sql;
mod status;
mod summary;
mod tokens;
mod vacuum;
mod values;
mod verify;
mod words;
mod writers;

pub use args::command;
pub use exit::Exit;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::report::Progress;
use crate::store::Store;
use crate::store::passing;
use args::{Cli, Command};
use interrupt::Interrupts;
use out::{Out, Stop};
use screen::Screen;

/// How long a process that was told to end waits until its leases and probes are taken away.
const TAKING_AWAY: Duration = Duration::from_secs(2);

/// What every command is given besides its own arguments.
struct Context {
    store_options: Vec<(String, String)>,
    screen: Screen,
    progress: Progress,
    interrupts: Interrupts,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    hush_decoders();
    let words: Vec<OsString> = std::env::args_os().collect();
    let matches = match command().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return failure::not_understood(&error, &words).into(),
    };
    run(&matches).into()
}

/// A decoder that panics over a damaged file is caught, and the file named: the panic itself is not for the user's eyes.
fn hush_decoders() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::source::parquet::is_shielded() {
            tell(panic);
        }
    }));
}

fn run(matches: &ArgMatches) -> Exit {
    let cli = match Cli::from_arg_matches(matches) {
        Ok(cli) => cli,
        Err(error) => return failure::not_understood(&error, &[]),
    };
    let screen = Screen::default();
    screen.take_logs(cli.common.verbose);
    let mut out = Out::stdout(cli.common.output);
    let runtime =
        handles_enough().and_then(|()| tokio::runtime::Builder::new_multi_thread().enable_all().build());
    let (ended, interrupted) = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(async {
                let ended = dispatch(cli, &screen, &mut out).await;
                passing::taken_away(TAKING_AWAY).await;
                ended
            });
            // Whatever still reads or writes in the background has nothing to add.
            runtime.shutdown_background();
            ended
        }
        Err(e) => (Err(Error::store("start", "the runtime", e).into()), Exit::Interrupted),
    };
    failure::conclude(ended, interrupted, &screen, &mut out)
}

/// Fails where there are so few file handles left that the runtime would panic instead of saying so.
fn handles_enough() -> std::io::Result<()> {
    #[cfg(unix)]
    (0..4).map(|_| std::os::unix::net::UnixStream::pair()).collect::<std::io::Result<Vec<_>>>()?;
    Ok(())
}

async fn dispatch(cli: Cli, screen: &Screen, out: &mut Out) -> (Result<Exit, Stop>, Exit) {
    let progress = Progress::default();
    let gently = matches!(cli.command, Command::Ingest(_) | Command::Doctor(_)).then(|| progress.clone());
    let interrupts = Interrupts::watch(screen, gently);
    let ended = match values::store_options(&cli.common.store_options) {
        Ok(store_options) => {
            let (screen, interrupts) = (screen.clone(), interrupts.clone());
            let context = Context { store_options, screen, progress, interrupts };
            answer(cli.command, &context, out).await
        }
        Err(error) => Err(error.into()),
    };
    (ended, interrupts.exit())
}

async fn answer(command: Command, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    match command {
        Command::Ingest(args) => ingest::run(*args, context, out).await,
        Command::Status(args) => status::run(args, context, out).await,
        Command::Log(args) => log::run(args, context, out).await,
        Command::Show(args) => show::run(args, context, out).await,
        Command::Files(args) => files::run(args, context, out).await,
        Command::Outcome(args) => outcome::run(args, context, out).await,
        Command::Explain(args) => explain::run(args, context, out).await,
        Command::Verify(args) => verify::run(args, context, out).await,
        Command::Doctor(args) => doctor::run(args, context, out).await,
        #[cfg(feature = "datafusion")]
        Command::Sql(args) => sql::run(args, context, out).await,
        Command::Tokens(args) => tokens::run(args, context, out).await,
        Command::Quarantine(args) => quarantine::run(args, context, out).await,
        Command::Compact(args) => compact::run(args, context, out).await,
        Command::Vacuum(args) => vacuum::run(args, context, out).await,
        Command::Completions(args) => completions::run(&args, out),
        Command::Man(args) => man::run(&args, out),
    }
}

/// Opens the table at `location` as it is now, or as it was at `version`, to be read.
async fn open(location: &str, version: Option<u64>, context: &Context) -> Result<Ledger> {
    let store = Store::open(location, &context.store_options)?;
    let ledger = match version {
        Some(version) => Ledger::open_at(store.clone(), version).await?,
        None => Ledger::open(store.clone()).await?,
    };
    there(ledger, &store)
}

/// As [`open`], for those who only tell what the ledger says: that can be told of every version for ever.
async fn open_to_tell(location: &str, version: Option<u64>, context: &Context) -> Result<Ledger> {
    let Some(version) = version else { return open(location, None, context).await };
    let store = Store::open(location, &context.store_options)?;
    there(Ledger::folded_at(store.clone(), version).await?, &store)
}

fn there(ledger: Option<Ledger>, store: &Store) -> Result<Ledger> {
    let shown = table_url(store);
    ledger.ok_or_else(|| {
        Error::Usage(format!(
            "there is no table at {shown}: check the location, or create it with \
             `dedupe ingest SOURCE… --into {shown} --key COLUMN`"
        ))
    })
}

/// Where a table lies, as it is shown everywhere.
fn table_url(store: &Store) -> String {
    let url = store.url();
    match url.trim_end_matches('/') {
        "" => url,
        trimmed => trimmed.to_owned(),
    }
}
