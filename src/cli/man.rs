//! `dedupe man [COMMAND]`: manual pages in roff.

use clap_mangen::Man;
use serde_json::json;

use super::args::command;
use super::exit::Exit;
use super::out::{Out, Stop};
use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  dedupe man > ~/.local/share/man/man1/dedupe.1
  dedupe man ingest | man -l -";

/// Prints a manual page.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The command whose page is wanted [default: that of dedupe itself]
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<Exit, Stop> {
    let page = page(args.command.as_deref())?;
    if out.is_json() {
        out.json(&json!({ "command": args.command, "page": page }))?;
    } else {
        out.text(&page)?;
    }
    Ok(Exit::Done)
}

fn page(wanted: Option<&str>) -> Result<String, Error> {
    let mut root = command();
    // Names such as dedupe-ingest and the common flags are filled in here.
    root.build();
    let command = match wanted {
        None => root,
        Some(name) => root
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Error::Usage(format!("there is no command {name}: see `dedupe --help`")))?,
    };
    let mut page = Vec::new();
    Man::new(command)
        .source(concat!("dedupe ", env!("CARGO_PKG_VERSION")))
        .manual("dedupe")
        .render(&mut page)
        .map_err(|e| Error::Internal(format!("the manual page cannot be written: {e}")))?;
    // What follows the help is one section without a name to the generator, and two to a reader.
    let page = String::from_utf8_lossy(&page);
    Ok(page
        .replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n")
        .replace("\nExit codes:\n", "\n.SH \"EXIT STATUS\"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_the_first_tells_the_exit_codes() {
        let text = |name| page(name).unwrap();
        let root = text(None);
        assert!(root.contains(".TH dedupe 1") && root.contains("\n.SH \"EXIT STATUS\"\n"), "{root}");
        for sub in command().get_subcommands() {
            assert!(text(Some(sub.get_name())).contains("\n.SH EXAMPLES\n"), "{}", sub.get_name());
        }
        assert!(matches!(page(Some("nonsense")), Err(Error::Usage(_))));
    }
}
