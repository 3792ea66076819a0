//! Models by name, from a local server with the Hub's API.

pub mod server;

use crate::{gguf::split, support::path};
use serde_json::{Value, json};
use server::*;
use std::{fs, path::Path, process::Command};
use tempfile::TempDir;
use wgpt::weights::{Bytes, Gguf};

/// The built-in model's files, and some files that are not needed.
pub fn demo() -> Vec<(&'static str, Vec<u8>)> {
    let read = |name: &str| fs::read(path("../src/demo").join(name)).expect("the built-in model");
    vec![
        ("README.md", b"read me".to_vec()),
        ("config.json", read("config.json")),
        ("model.safetensors", read("model.safetensors")),
        ("onnx/model.onnx", vec![7; 100]),
        ("pytorch_model.bin", vec![7; 100]),
        ("tokenizer.json", read("tokenizer.json")),
    ]
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn repository(home: &TempDir) -> std::path::PathBuf {
    home.path().join("hub/models--tiny--demo")
}

fn blobs(home: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(repository(home).join("blobs")).expect("blobs");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

const STORY: [&str; 7] = ["generate", "Once upon a time", "-n", "9", "--greedy", "--device", "cpu"];

fn story(model: &str) -> Vec<&str> {
    [&STORY[..], &["-m", model]].concat()
}

#[test]
fn a_model_is_pulled_listed_run_and_removed() {
    let (hub, home) = (FakeHub::start(&demo()), home());
    let (code, out, err) = hub.run(&home, &["pull", "tiny/demo"]);
    assert_eq!(code, 0, "{err}");
    let snapshot = repository(&home).join("snapshots").join(COMMIT);
    assert_eq!(Path::new(out.trim_end()), snapshot);
    assert_eq!(fs::read_to_string(repository(&home).join("refs/main")).expect("refs/main"), COMMIT);
    let mut expected: Vec<_> = demo()
        .iter()
        .filter(|(name, _)| ["config.json", "model.safetensors", "tokenizer.json"].contains(name))
        .map(|(name, bytes)| etag(name, bytes))
        .collect();
    expected.sort();
    assert_eq!(blobs(&home), expected, "only what is needed, by what names its content");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(snapshot.join("config.json")).expect("a link"),
        Path::new("../../blobs").join(etag("config.json", &demo()[1].1))
    );
    let before = hub.count();
    let (code, out, err) = hub.run(&home, &story("tiny/demo"));
    assert_eq!((code, out.as_str()), (0, hub.run(&home, &STORY).1.as_str()), "{err}");
    assert!(err.contains("tiny/demo on"), "it bears its name: {err}");
    assert_eq!(hub.count(), before, "what is in the cache needs no network");
    let (_, out, _) = hub.run(&home, &["list"]);
    assert!(out.starts_with("tiny/demo ") && out.lines().count() == 1, "{out}");
    let (_, out, _) = hub.run(&home, &["list", "--json"]);
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&listed["name"], &listed["complete"]), (&json!("tiny/demo"), &json!(true)));
    // A second pull asks the server, but downloads nothing.
    let large = hub.of_large("range").len();
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 0);
    assert_eq!(hub.of_large("range").len(), large);
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    assert!(!repository(&home).exists());
    assert_eq!(hub.run(&home, &["list"]).1, "");
    let (code, _, err) = hub.run(&home, &["rm", "tiny/demo"]);
    assert!(code == 3 && err.contains("tiny/demo"), "{code} {err}");
    // --model downloads a model too.
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);
}

#[test]
fn what_breaks_off_goes_on_where_it_ended() {
    let (hub, home) = (FakeHub::start(&demo()), home());
    let bytes = demo()[2].1.len();
    hub.troubled(Trouble { cut_after: Some(bytes / 3 + 1), ..Trouble::default() });
    let (code, _, err) = hub.run(&home, &story("tiny/demo"));
    assert_eq!(code, 0, "cut twice, and gone on with: {err}");
    let from = |part: usize| Some(format!("bytes={}-", part * (bytes / 3 + 1)));
    assert_eq!(hub.of_large("range"), [None, from(1), from(2)]);

    // The download fails for good: an error, and no file that looks complete.
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    hub.troubled(Trouble { cut_after: Some(bytes / 2), answers: Some(1), ..Trouble::default() });
    let (code, out, err) = hub.run(&home, &story("tiny/demo"));
    assert!(code == 1 && out.is_empty() && err.contains("503") && err.lines().count() == 1, "{code} {err}");
    let name = etag("model.safetensors", &demo()[2].1);
    assert!(blobs(&home).contains(&format!("{name}.incomplete")) && !blobs(&home).contains(&name));
    let (_, out, _) = hub.run(&home, &["list", "--json"]);
    assert!(out.contains("\"complete\":false"), "{out}");
    let mut offline = hub.command(&home, &story("tiny/demo"));
    let (code, _, err) = outcome({
        offline.env("HF_HUB_OFFLINE", "1");
        offline
    });
    assert!(code == 3 && err.contains("HF_HUB_OFFLINE"), "half of it is no model: {code} {err}");
    // A later run resumes the download.
    hub.troubled(Trouble::default());
    let (code, _, err) = hub.run(&home, &story("tiny/demo"));
    assert_eq!(code, 0, "{err}");
    assert_eq!(hub.of_large("range").last(), Some(&Some(format!("bytes={}-", bytes / 2))));

    // A server that ignores ranges sends the whole file, so the partial file starts over.
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    hub.troubled(Trouble { cut_after: Some(bytes / 2), answers: Some(1), ..Trouble::default() });
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 1);
    hub.troubled(Trouble { no_ranges: true, ..Trouble::default() });
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);
    // A server that refuses ranges: the download restarts, but fails if the file is shorter than the Hub
    // says.
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    hub.troubled(Trouble { cut_after: Some(bytes / 2), answers: Some(1), ..Trouble::default() });
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 1);
    hub.troubled(Trouble { refuses_ranges: true, cut_after: Some(bytes - 10), ..Trouble::default() });
    let (code, _, err) = hub.run(&home, &story("tiny/demo"));
    assert!(code == 1 && err.contains("model.safetensors of tiny/demo has not"), "{code} {err}");
    hub.troubled(Trouble { refuses_ranges: true, ..Trouble::default() });
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);

    // A model must not be removed while a process downloads it.
    let locks = home.path().join("hub/.locks/models--tiny--demo");
    let lock = fs::File::open(locks.join(format!("{name}.lock"))).expect("a lock");
    lock.lock().expect("nobody has it");
    let (code, _, err) = hub.run(&home, &["rm", "tiny/demo"]);
    assert!(code == 1 && err.contains("another process"), "{code} {err}");
}

#[test]
fn a_wrong_checksum_is_refused() {
    let (hub, home) = (FakeHub::start(&demo()), home());
    hub.troubled(Trouble { damaged: true, ..Trouble::default() });
    let (code, out, err) = hub.run(&home, &story("tiny/demo"));
    assert!(code == 3 && out.is_empty(), "{code} {err}");
    assert!(err.contains("model.safetensors of tiny/demo") && err.contains("checksum"), "{err}");
    let name = etag("model.safetensors", &demo()[2].1);
    assert!(blobs(&home).iter().all(|blob| !blob.starts_with(&name)), "nothing of it is kept");
    hub.troubled(Trouble::default());
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);
}

#[test]
fn who_may_not_read_is_told_why() {
    let (hub, home) = (FakeHub::start(&demo()), home());
    let fails = |args: &[&str], code: i32, words: &[&str]| {
        let (got, out, err) = hub.run(&home, args);
        assert_eq!((got, out.as_str()), (code, ""), "{err}");
        assert!(words.iter().all(|word| err.contains(word)) && err.lines().count() == 1, "{words:?}: {err}");
    };
    fails(&["pull", "tiny/none"], 3, &["tiny/none", "check the name"]);
    fails(&story("tiny/none"), 3, &["tiny/none"]);
    let (code, _, err) = hub.run(&home, &["pull", "demo"]);
    assert!(code == 2 && err.contains("owner/name"), "{code} {err}");
    fails(&story("gpt2"), 3, &["gpt2", "owner/name"]);
    fails(&["pull", "tiny/demo:Q4_K_M"], 3, &["tiny/demo", ".gguf"]);
    hub.troubled(Trouble { gated: true, ..Trouble::default() });
    fails(&["pull", "tiny/demo"], 3, &["gated", "accept", "HF_TOKEN"]);
    hub.troubled(Trouble { private: true, ..Trouble::default() });
    fails(&["pull", "tiny/demo"], 3, &["tiny/demo", "401", "HF_TOKEN"]);
    let with = |name: &str, value: &str| {
        let mut command = hub.command(&home, &["pull", "tiny/demo"]);
        outcome({
            command.env(name, value);
            command
        })
    };
    assert_eq!(with("HF_TOKEN", "wrong").0, 3);
    let (code, _, err) = with("HF_TOKEN", "secret");
    assert_eq!(code, 0, "{err}");
    assert_eq!(hub.of_large("authorization"), [None], "the token is the Hub's business alone");
    fs::write(home.path().join("token"), "secret\n").expect("a file");
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 0, "as logging in leaves it");
    let (code, _, err) = with("HF_ENDPOINT", "http://127.0.0.1:1");
    assert!(code == 1 && err.contains("http://127.0.0.1:1") && err.contains("network"), "{code} {err}");
    let (code, _, err) = with("HF_ENDPOINT", "hub.example");
    assert!(code == 2 && err.contains("HF_ENDPOINT"), "{code} {err}");
    let (code, out, _) = {
        let mut command = hub.command(&home, &story("tiny/demo"));
        outcome({
            command.env("HF_ENDPOINT", "http://127.0.0.1:1");
            command
        })
    };
    assert!(code == 0 && !out.is_empty(), "in the cache, and no network");
}

/// Caches in which another tool copied files instead of linking them, a truncated blob, and repositories with
/// impossible contents.
#[test]
fn what_is_odd_in_a_cache_or_repository_is_mended_or_refused() {
    let (hub, home) = (FakeHub::start(&demo()), home());
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 0);
    let snapshot = repository(&home).join("snapshots").join(COMMIT);
    let weights = snapshot.join("model.safetensors");
    // The blob is truncated: the next pull downloads it again.
    fs::write(fs::canonicalize(&weights).expect("a blob"), b"cut").expect("a file");
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 3);
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 0);
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);
    // Replaces the links by copies of the files.
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let bytes = fs::read(snapshot.join(name)).expect("a file");
        fs::remove_file(snapshot.join(name)).expect("a link");
        fs::write(snapshot.join(name), bytes).expect("a file");
    }
    fs::remove_dir_all(repository(&home).join("blobs")).expect("blobs");
    let fetched = hub.of_large("range").len();
    assert_eq!(hub.run(&home, &["pull", "tiny/demo"]).0, 0);
    assert_eq!(hub.of_large("range").len(), fetched, "all of it is there");
    assert_eq!(hub.run(&home, &story("tiny/demo")).0, 0);
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    // Paths that lead out of the folder are ignored.
    hub.troubled(Trouble { odd_names: true, ..Trouble::default() });
    let (code, _, err) = hub.run(&home, &story("tiny/demo"));
    assert!(code == 0 && !err.contains('\u{1b}'), "{err}");
    let (code, _, err) = hub.run(&home, &["pull", "tiny/demo:evil"]);
    assert!(code == 3 && !err.contains('\u{1b}') && err.lines().count() == 1, "{err}");
    // The server sends more bytes than the file has, on every attempt.
    assert_eq!(hub.run(&home, &["rm", "tiny/demo"]).0, 0);
    hub.troubled(Trouble { beyond: 1 << 20, ..Trouble::default() });
    let (code, _, err) = hub.run(&home, &["pull", "tiny/demo"]);
    assert!(code == 1 && err.contains("more came"), "{code} {err}");
    // A repository without a tokenizer is refused before the weights are downloaded.
    let files: Vec<_> = demo().into_iter().filter(|(name, _)| *name != "tokenizer.json").collect();
    let hub = FakeHub::start(&files);
    let (code, _, err) = hub.run(&home, &["pull", "tiny/demo"]);
    assert!(code == 3 && err.contains("tokenizer.json") && err.lines().count() == 1, "{code} {err}");
    assert_eq!(hub.of_large("range").len(), 0);
}

/// Weights in two files that the index lists, and one file that it does not list.
#[test]
fn sharded_weights_come_whole() {
    let mut files = demo();
    let (_, weights) = files.remove(2);
    let tensors = safetensors::SafeTensors::deserialize(&weights).expect("safetensors");
    let mut map = serde_json::Map::new();
    for shard in 0..2 {
        let name = format!("model-0000{}-of-00002.safetensors", shard + 1);
        let part: Vec<_> =
            tensors.iter().enumerate().filter(|(i, _)| i % 2 == shard).map(|(_, tensor)| tensor).collect();
        map.extend(part.iter().map(|(tensor, _)| (tensor.to_string(), json!(name))));
        let bytes = safetensors::serialize(part, None).expect("safetensors");
        files.push((
            if shard == 0 { "model-00001-of-00002.safetensors" } else { "model-00002-of-00002.safetensors" },
            bytes,
        ));
    }
    files.push(("model.safetensors.index.json", json!({"weight_map": map}).to_string().into_bytes()));
    files.push(("consolidated.safetensors", weights.clone()));
    let (hub, home) = (FakeHub::start(&files), home());
    let (code, out, err) = hub.run(&home, &story("tiny/demo"));
    assert_eq!((code, out.as_str()), (0, hub.run(&home, &STORY).1.as_str()), "{err}");
    assert_eq!(hub.of_large("range").len(), 2);
}

/// The built-in model as a GGUF file.
fn packed(format: &str) -> Vec<u8> {
    let made = home();
    let to = made.path().join("made.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    command.args(["quantize", concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo")]);
    command.args([to.to_str().expect("UTF-8"), "--format", format]);
    let (code, _, err) = outcome(command);
    assert_eq!(code, 0, "{err}");
    fs::read(to).expect("a file")
}

/// All parts are downloaded; they are listed, run and removed as one model.
#[test]
fn a_split_model_is_pulled_listed_run_and_removed() {
    let whole = packed("q8_0");
    let parts = split(&Gguf::read("whole", Bytes::new(whole.clone())).expect("a GGUF file"), 2);
    let names = ["demo-Q8_0-00001-of-00002.gguf", "demo-Q8_0-00002-of-00002.gguf"];
    let (hub, home, elsewhere) =
        (FakeHub::start(&[(names[0], parts[0].clone()), (names[1], parts[1].clone())]), home(), home());
    let (code, out, err) = hub.run(&home, &story("tiny/demo:q8_0"));
    fs::write(elsewhere.path().join("whole.gguf"), whole).expect("a file");
    let file = elsewhere.path().join("whole.gguf");
    let (_, of_whole, _) = hub.run(&home, &story(file.to_str().expect("UTF-8")));
    assert_eq!((code, out), (0, of_whole), "{err}");
    let (_, out, _) = hub.run(&home, &["list"]);
    let name = format!("tiny/demo:{}", names[0]);
    assert!(out.starts_with(&format!("{name} ")) && out.lines().count() == 1, "{out}");
    assert_eq!(hub.run(&home, &["rm", &name]).0, 0);
    assert!(!repository(&home).exists());
}

#[test]
fn a_quantisation_names_a_gguf_file() {
    let (hub, home) = (
        FakeHub::start(&[
            ("demo-F16.gguf", packed("f16")),
            ("demo-Q8_0.gguf", packed("q8_0")),
            ("README.md", vec![1]),
        ]),
        home(),
    );
    let (code, out, err) = hub.run(&home, &["pull", "tiny/demo:q8_0"]);
    assert!(code == 0 && out.ends_with("demo-Q8_0.gguf\n"), "{out} {err}");
    assert_eq!(hub.of_large("range").len(), 1);
    assert_eq!(hub.run(&home, &story("tiny/demo:Q8_0")).0, 0);
    assert_eq!(hub.run(&home, &story("tiny/demo:demo-F16.gguf")).0, 0);
    assert_eq!(hub.of_large("range").len(), 2);
    let (_, out, _) = hub.run(&home, &["list"]);
    let names: Vec<_> = out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["tiny/demo:demo-F16.gguf", "tiny/demo:demo-Q8_0.gguf"]);
    let (code, _, err) = hub.run(&home, &["pull", "tiny/demo:Q5_K"]);
    assert!(code == 3 && err.contains("demo-F16.gguf, demo-Q8_0.gguf"), "{err}");
    // A later commit has only one of the files; the other one stays in the cache.
    const LATER: &str = "89abcdef0123456789abcdef0123456789abcdef";
    hub.troubled(Trouble { later: Some((LATER, vec!["demo-Q8_0.gguf"])), ..Trouble::default() });
    let (code, out, err) = hub.run(&home, &["pull", "tiny/demo:q8_0"]);
    assert!(code == 0 && out.contains(LATER), "{out} {err}");
    assert_eq!(hub.run(&home, &story("tiny/demo:F16")).0, 0);
    assert_eq!(hub.run(&home, &["list"]).1.lines().count(), 2);
    // Removed from both commits.
    assert_eq!(hub.run(&home, &["rm", "tiny/demo:q8_0"]).0, 0);
    let (_, out, _) = hub.run(&home, &["list"]);
    assert!(out.starts_with("tiny/demo:demo-F16.gguf ") && out.lines().count() == 1, "{out}");
    assert_eq!(hub.run(&home, &["rm", names[0]]).0, 0);
    assert!(!repository(&home).exists());
}
