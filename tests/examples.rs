//! Runs the examples of the library.

use crate::support::adapter_name;
use std::process::Command;

/// Runs an example and returns its stdout. `cargo test` builds the examples beside the tests.
fn run(name: &str) -> String {
    let tests = std::env::current_exe().expect("a test's own path");
    let built =
        tests.parent().and_then(|deps| deps.parent()).expect("target/…/deps").join("examples").join(name);
    let output = Command::new(built).output().expect("an example that was built");
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
    assert!(output.status.success(), "{name}: {err}");
    out
}

#[test]
fn a_text_is_streamed() {
    let text = run("generate");
    assert!(text.len() > 60 && text.ends_with('\n'), "{text}");
}

#[test]
fn a_conversation_remembers() {
    let text = run("chat");
    let questions = text.lines().filter(|line| line.starts_with("> ")).count();
    assert!(questions == 2 && text.lines().count() >= 4, "{text}");
}

#[test]
fn a_model_runs_on_an_applications_device() {
    if adapter_name().is_some() {
        assert!(run("embed").starts_with(", there was a little girl"));
    }
}
