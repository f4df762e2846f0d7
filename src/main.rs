//! The command `dedupe`. Everything it does is in the library; this is only its front door.

use std::process::ExitCode;

fn main() -> ExitCode {
    dedupe::cli::main()
}
