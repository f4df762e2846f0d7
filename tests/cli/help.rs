//! Help, completions, manual pages.

use crate::scene::Scene;

const COMMANDS: [&str; 15] = [
    "ingest",
    "status",
    "log",
    "show",
    "files",
    "outcome",
    "explain",
    "verify",
    "doctor",
    "tokens",
    "quarantine",
    "compact",
    "vacuum",
    "completions",
    "man",
];

#[test]
fn the_bare_command_prints_its_help_and_is_a_wrong_use() {
    let ended = Scene::new().run(&[]);
    assert_eq!(ended.code, 2);
    assert!(ended.out.is_empty());
    assert!(ended.err.contains("Usage: dedupe") && ended.err.contains("ingest"), "{ended:?}");
}

#[test]
fn help_lists_every_command_with_examples_and_exit_codes() {
    let ended = Scene::new().run(&["--help"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    for word in COMMANDS.iter().chain(&["Examples:", "Exit codes:", " 75  a commit's outcome is unknown"]) {
        assert!(ended.out.contains(word), "{word}: {}", ended.out);
    }
}

#[test]
fn every_command_has_help_with_an_example_and_the_defaults() {
    let scene = Scene::new();
    for command in COMMANDS {
        let ended = scene.run(&[command, "--help"]);
        assert_eq!(ended.code, 0, "{command}");
        assert!(ended.out.contains("Examples:") && ended.out.contains("--store-option"), "{}", ended.out);
    }
    let ingest = scene.run(&["ingest", "--help"]).out;
    for default in ["256MB", "1048576", "64MiB", "quarantine", "siphash-2-4-128", "at most 1GiB"] {
        assert!(ingest.contains(default), "{default}: {ingest}");
    }
}

#[test]
fn version_names_the_program() {
    let ended = Scene::new().run(&["--version"]);
    assert_eq!((ended.code, ended.out), (0, format!("dedupe {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_typo_is_answered_with_a_suggestion() {
    let scene = Scene::new();
    let ended = scene.run(&["statsu", "t"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("'status'"), "{ended:?}");
    assert!(scene.run(&["ingest", "a", "--intoo", "t"]).err.contains("--into"));
    assert!(scene.run(&["ingest", "a", "--into", "t", "--null-key", "kepe"]).err.contains("'keep'"));
}

#[test]
fn completions_exist_for_every_shell_and_know_the_commands() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = scene.run(&["completions", shell]);
        assert_eq!(ended.code, 0, "{shell}");
        assert!(COMMANDS.iter().all(|command| ended.out.contains(command)), "{shell}");
    }
    assert_eq!(scene.answer(&["completions", "bash"])["shell"], "bash");
    assert_eq!(scene.run(&["completions", "cmd"]).code, 2);
}

#[test]
fn manual_pages_exist_for_the_program_and_each_command() {
    let scene = Scene::new();
    let page = scene.run(&["man"]);
    assert_eq!(page.code, 0);
    assert!(page.out.contains(".TH dedupe 1") && page.out.contains(".SH \"EXIT STATUS\""), "{}", page.out);
    for command in COMMANDS {
        let page = scene.run(&["man", command]);
        assert!(page.out.contains(&format!(".TH dedupe-{command} 1")), "{command}: {}", page.out);
    }
    assert_eq!(scene.run(&["man", "nonsense"]).code, 2);
}
