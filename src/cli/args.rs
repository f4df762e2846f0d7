//! What can be typed. Each command's own arguments stand with the command.

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::exit::Exit;
use super::out::Format;
use super::{
    compact, completions, doctor, explain, files, ingest, log, man, outcome, quarantine, show, status,
    tokens, vacuum, verify,
};

const EXAMPLES: &str = "\
Examples:
  dedupe ingest events/ --into /lake/events --key event_id
  dedupe ingest 's3://raw/2026-01-*/*.json.gz' --into s3://lake/events --key user.id,ts
  dedupe status /lake/events
  dedupe explain /lake/events --key event_id=4f1c…";

/// Exactly-once for data lakes, at the last step.
///
/// Reads Parquet and NDJSON that was delivered at least once, drops every row whose key was already accepted
/// (by any writer, in any earlier run), and commits the rest as Parquet together with an immutable record of what
/// happened. Everything is kept in the table's own folder or bucket; there is no database and no lock service.
#[derive(Debug, Parser)]
#[command(name = "dedupe", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// Flags of every command.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
pub(super) struct Common {
    /// Print results as text, or as one JSON object (on failure too: {"error":{"kind","message","exit"}}).
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Format,
    /// Option for the object stores, such as aws_region=eu-central-1; repeat for more.
    ///
    /// Credentials and endpoints otherwise come from each cloud's usual environment variables. Values are
    /// never printed.
    #[arg(long = "store-option", global = true, value_name = "NAME=VALUE")]
    pub(super) store_options: Vec<String>,
    /// Log more to standard error (-v, -vv, -vvv); RUST_LOG says it exactly.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Store options may be secrets.
        f.debug_struct("Common")
            .field("output", &self.output)
            .field("verbose", &self.verbose)
            .finish_non_exhaustive()
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add files to a table, dropping every row whose key it already holds.
    Ingest(Box<ingest::Args>),
    /// Show what a table holds.
    Status(status::Args),
    /// List the versions of a table, newest first.
    Log(log::Args),
    /// Show one version: what was read, what became of it, which files it added.
    Show(show::Args),
    /// List the live data files, one absolute path or URL a line.
    Files(files::Args),
    /// Tell whether a batch was committed, and with which result.
    Outcome(outcome::Args),
    /// Tell whether a key is known, since when, from which source, and where its row lies.
    Explain(explain::Args),
    /// Check a table against its own record: accounting, checksums, every key both ways.
    Verify(verify::Args),
    /// Check whether a store can be trusted with tables, and what ails a table.
    Doctor(doctor::Args),
    /// Ask a table in SQL.
    #[cfg(feature = "datafusion")]
    Sql(super::sql::Args),
    /// Export the accepted tokens as Parquet.
    Tokens(tokens::Args),
    /// List or print the rows that were kept out.
    Quarantine(quarantine::Args),
    /// Merge token runs, so that look-ups stay quick.
    Compact(compact::Args),
    /// Delete what no version needs any more: leftovers of crashes and lost races, and old snapshots.
    Vacuum(vacuum::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual page.
    Man(man::Args),
}

/// A table to be asked.
#[derive(Debug, Args)]
pub(super) struct TableArg {
    /// The table: a path or URL (s3://, gs://, az://, abfss://, file://).
    #[arg(value_name = "TABLE")]
    pub(super) table: String,
}

/// The whole command line as clap knows it, for parsing, completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command().after_help(format!("{EXAMPLES}\n\n{}", Exit::help()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn refused(line: &str) -> clap::Error {
        command().try_get_matches_from(line.split(' ')).unwrap_err()
    }

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn nothing_typed_means_help() {
        assert_eq!(refused("dedupe").kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    }

    #[test]
    fn a_typo_is_answered_with_a_suggestion() {
        assert!(refused("dedupe stats /t").to_string().contains("'status'"));
        assert!(refused("dedupe ingest a --intoo t").to_string().contains("'--into'"));
    }

    #[test]
    fn every_command_takes_the_common_flags_and_shows_examples() {
        let mut command = command();
        command.build();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let help = sub.render_long_help().to_string();
            for flag in ["--output", "--store-option", "--verbose", "Example"] {
                assert!(help.contains(flag), "{} lacks {flag}", sub.get_name());
            }
        }
    }

    #[test]
    fn secrets_in_store_options_do_not_show() {
        use clap::FromArgMatches;
        let line = ["dedupe", "status", "/t", "--store-option", "aws_secret_access_key=hunter2"];
        let cli = Cli::from_arg_matches(&command().try_get_matches_from(line).unwrap()).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
        assert_eq!(cli.common.store_options, ["aws_secret_access_key=hunter2"]);
    }
}
