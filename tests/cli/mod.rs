//! Runs the program and checks its output, JSON and exit codes.

mod generate;
mod refused;
mod tools;

use crate::support::{path, shared};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use wgpt::{buffers::Sizes, capabilities::Capabilities, engine::plans, model::Model};

fn wgpt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program. It must not panic.
fn run(args: &[&str]) -> (i32, String, String) {
    outcome(args, wgpt(args).output().expect("it starts"))
}

fn run_with_stdin(args: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut child = wgpt(args).stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(stdin).expect("it reads");
    outcome(args, child.wait_with_output().expect("it ends"))
}

fn outcome(args: &[&str], output: Output) -> (i32, String, String) {
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
    assert!(!err.contains("panicked"), "{args:?}: {err}");
    (output.status.code().unwrap_or_else(|| panic!("{args:?} was killed: {err}")), out, err)
}

/// Runs the program and checks that it fails with this code, prints an error that contains all of `words`,
/// and writes nothing to stdout.
fn fails(args: &[&str], code: i32, words: &[&str]) {
    let (got, out, err) = run(args);
    assert_eq!(got, code, "{args:?}: {err}");
    assert_eq!(out, "", "{args:?}");
    for word in words {
        assert!(err.contains(word), "{args:?} should say {word:?}: {err}");
    }
}

fn json_of(args: &[&str]) -> Value {
    let (code, out, err) = run(args);
    assert_eq!(code, 0, "{args:?}: {err}");
    assert_eq!(out.lines().count(), 1, "one object a line: {out}");
    serde_json::from_str(&out).expect("JSON")
}

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo");
const CPU: &[&str] = &["--device", "cpu"];

/// A copy of the built-in model's files, with a change made to it.
fn model(change: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).expect("a copy");
    }
    change(folder.path());
    folder
}

/// A copy of the built-in model with fields of config.json set; null removes a field's value.
fn configured(fields: Value) -> TempDir {
    model(|folder| {
        let file = folder.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).expect("config")).expect("JSON");
        for (name, value) in fields.as_object().expect("fields") {
            config[name] = value.clone();
        }
        fs::write(file, config.to_string()).expect("a file");
    })
}
