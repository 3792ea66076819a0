//! Runs the Windows program under Wine, with `tests/run --compilers` and the script ../shared/gpu-lab/lab: on
//! its CPU backend, on Vulkan (Mesa's llvmpipe) and on DX12 (Wine's own; programs compiled by FXC).

use crate::{
    compilers::{lab, thorough, words},
    hub::{
        demo,
        server::{FakeHub, Trouble},
    },
    support::{Fixture, path},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const HERE: &str = env!("CARGO_MANIFEST_DIR");
const DEVICES: [&str; 3] = ["cpu", "vulkan:llvmpipe", "dx12"];

/// Runs wgpt.exe: its exit code, its stdout and its stderr.
fn wgpt(args: &[&str], set: impl FnOnce(Command) -> Command) -> Option<(i32, String, String)> {
    let output = lab(Path::new(HERE), &[&["windows"], args].concat(), set)?;
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
    assert!(!err.contains("panicked"), "{args:?}: {err}");
    Some((output.status.code().expect("an exit code"), out.replace("\r\n", "\n"), err))
}

fn answer(args: &[&str]) -> Option<String> {
    let (code, out, err) = wgpt(args, |command| command)?;
    assert_eq!(code, 0, "{args:?}: {err}");
    Some(out)
}

/// The stdout of the program for this machine.
fn native(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_wgpt")).args(args).output().expect("it starts");
    assert!(output.status.success(), "{args:?}: {}", words(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A single test, because it builds the program first, and all runs share one Wine.
#[test]
fn under_wine_it_does_as_here() {
    if !thorough() {
        return;
    }
    let Some(built) = lab(Path::new(HERE), &["windows", "build"], |command| command) else { return };
    assert!(built.status.success(), "{}", words(&built));
    listed();
    every_device_is_right();
    fixtures_give_their_tokens();
    conversations_go_through_pipes();
    files_are_mapped_written_and_named_in_any_script();
    models_are_pulled_and_run_by_name();
    control_c_ends_it();
}

fn listed() {
    let out = answer(&["devices", "--json"]).expect("the script");
    let devices: Value = serde_json::from_str(&out).expect("JSON");
    let backends: Vec<_> =
        devices.as_array().expect("an array").iter().map(|d| d["backend"].clone()).collect();
    assert_eq!(backends, ["vulkan", "dx12", "cpu"]);
    let (code, _, err) = wgpt(&["generate", "--device", "metal"], |command| command).expect("the script");
    assert!(code == 4 && err.contains("metal reaches no GPU"), "{code}: {err}");
}

fn every_device_is_right() {
    for device in ["vulkan:llvmpipe", "dx12"] {
        let out = answer(&["verify", "--device", device, "--json"]).expect("the script");
        let said: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(said["ok"], true, "{device}: {out}");
        println!("{device}: {} checks", said["checks"].as_array().map_or(0, Vec::len));
    }
}

fn fixtures_give_their_tokens() {
    for fixture in Fixture::all() {
        let folder = tempfile::tempdir().expect("a folder");
        let from = path("fixtures/models").join(&fixture.name);
        for file in fs::read_dir(from).expect("a fixture").map(|file| file.expect("a file")) {
            fs::copy(file.path(), folder.path().join(file.file_name())).expect("a copy");
        }
        // The prompt and the output are ids, so it does not matter that the tokenizer is another model's.
        let tokenizer = path("../src/demo/tokenizer.json");
        fs::copy(tokenizer, folder.path().join("tokenizer.json")).expect("a copy");
        let ids = fixture.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let count = fixture.greedy.len().to_string();
        let model = folder.path().to_str().expect("UTF-8");
        for device in DEVICES {
            let args = ["generate", "-m", model, "--prompt-tokens", &ids, "-n", &count, "--greedy", "--json"];
            let out = answer(&[&args[..], &["--device", device]].concat()).expect("the script");
            let said: Value = serde_json::from_str(&out).expect("JSON");
            let tokens: Vec<u32> = serde_json::from_value(said["tokens"].clone()).expect("ids");
            assert!(!tokens.is_empty(), "{} on {device}: {out}", fixture.name);
            assert_eq!(tokens, fixture.greedy[..tokens.len()], "{} on {device}", fixture.name);
        }
    }
}

fn conversations_go_through_pipes() {
    let folder = tempfile::tempdir().expect("a folder");
    let turns = folder.path().join("turns");
    fs::write(&turns, "Hello.\nWho is Lily?\n").expect("a file");
    let args = ["chat", "--device", "cpu", "--greedy", "-n", "20"];
    let pipe = |mut command: Command| {
        command.stdin(fs::File::open(&turns).expect("the turns"));
        command
    };
    let (code, out, err) = wgpt(&args, pipe).expect("the script");
    assert_eq!(code, 0, "{err}");
    let mut here = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    let here = here.args(args).stdin(fs::File::open(&turns).expect("the turns")).stderr(Stdio::null());
    assert_eq!(out, String::from_utf8(here.output().expect("it starts").stdout).expect("UTF-8"));
}

fn files_are_mapped_written_and_named_in_any_script() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("Ein Ordner mit Ümläuten, 模型");
    fs::create_dir(&here).expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(path("../src/demo").join(name), here.join(name)).expect("a copy");
    }
    let model = here.to_str().expect("UTF-8");
    let [ours, theirs] = ["größe a.gguf", "größe b.gguf"].map(|name| here.join(name).display().to_string());
    answer(&["quantize", model, &theirs, "--format", "q4_0"]).expect("the script");
    native(&["quantize", model, &ours, "--format", "q4_0"]);
    assert!(fs::read(&ours).expect("a file") == fs::read(&theirs).expect("a file"), "the same bytes");
    let args = ["generate", "Ein größerer Hund", "-m", &theirs, "-n", "20", "--greedy", "--device", "cpu"];
    assert_eq!(answer(&args).expect("the script"), native(&args));
}

fn models_are_pulled_and_run_by_name() {
    let (hub, home) = (FakeHub::start(&demo()), tempfile::tempdir().expect("a folder"));
    // Wine may not resolve localhost.
    hub.troubled(Trouble { one_host: true, ..Trouble::default() });
    let run = |args: &[&str]| {
        let (code, out, err) = wgpt(args, |command| hub.asked_by(command, &home)).expect("the script");
        assert_eq!(code, 0, "{args:?}: {err}");
        out
    };
    run(&["pull", "tiny/demo"]);
    assert!(run(&["list"]).contains("tiny/demo"));
    let asked = hub.count();
    let story = ["generate", "Once upon a time", "-n", "9", "--greedy", "--device", "cpu"];
    assert_eq!(run(&[&story[..], &["-m", "tiny/demo"]].concat()), native(&story));
    assert_eq!(hub.count(), asked, "what is in the cache needs no network");
    run(&["rm", "tiny/demo"]);
    assert!(!run(&["list"]).contains("tiny/demo"));
}

fn control_c_ends_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("long text");
    fs::write(&text, "Once upon a time, there was a little girl. ".repeat(20_000)).expect("a file");
    let args = ["perplexity", "--file", text.to_str().expect("UTF-8"), "--device", "vulkan:llvmpipe"];
    let named = text.display().to_string();
    let interrupted = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(15));
        Command::new("pkill")
            .args(["-INT", "-f", &format!("wine/wgpt.exe perplexity --file {named}")])
            .status()
            .expect("pkill starts")
    });
    let (code, out, err) = wgpt(&args, |command| command).expect("the script");
    assert!(interrupted.join().expect("a thread").success(), "it still ran after 15 s");
    assert_eq!((code, &*out), (130, ""), "{err}");
}
