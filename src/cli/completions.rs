//! `dedupe completions SHELL`.

use clap_complete::Shell;
use serde_json::json;

use super::args::command;
use super::exit::Exit;
use super::out::{Out, Stop};

const EXAMPLES: &str = "\
Examples:
  dedupe completions bash > ~/.local/share/bash-completion/completions/dedupe
  dedupe completions zsh > ~/.zfunc/_dedupe
  dedupe completions fish > ~/.config/fish/completions/dedupe.fish";

/// Prints a completion script.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<Exit, Stop> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "dedupe", &mut script);
    if out.is_json() {
        let script = String::from_utf8_lossy(&script);
        out.json(&json!({ "shell": args.shell.to_string(), "script": script }))?;
    } else {
        out.bytes(&script)?;
    }
    Ok(Exit::Done)
}
