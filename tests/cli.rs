//! The program from outside: words, JSON, exit codes.

use crate::support::{path, shared};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Output, Stdio},
};
use tempfile::TempDir;
use wgpt::{capabilities::Capabilities, engine::plans, model::Model, plan::Sizes};

fn wgpt(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it, and holds against it what is always wrong: a panic, an answer beside an error.
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

/// Runs it, sure that it fails with this code, an error of one sentence that says all of `words`, and no answer.
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

/// A copy of the built-in model's files, changed.
fn model(change: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(Path::new(DEMO).join(name), folder.path().join(name)).expect("a copy");
    }
    change(folder.path());
    folder
}

/// The same with fields of config.json set; null takes one away.
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

#[test]
fn generate_streams_the_continuation_alone() {
    let (code, out, err) = run(&[&["generate", "Once upon a time", "--greedy", "-n", "12"], CPU].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with(", there was a little girl"), "{out:?}");
    assert!(err.contains("stories260K") && err.contains("cpu"), "the device and why: {err}");
    let (_, quiet, err) =
        run(&[&["generate", "Once upon a time", "--greedy", "-n", "12", "--quiet"], CPU].concat());
    assert_eq!((quiet, err), (out, String::new()));
}

#[test]
fn generate_json_has_every_key() {
    let args = ["generate", "Once upon a time", "--greedy", "-n", "9", "--json"];
    let answer = json_of(&[&args, CPU].concat());
    assert_eq!(answer["model"], "stories260K");
    assert_eq!(answer["device"]["backend"], "cpu");
    assert!(answer["device"]["name"].is_string());
    assert_eq!(answer["prompt_tokens"], json!([1, 403, 407, 261, 378]));
    assert_eq!(answer["tokens"].as_array().expect("ids").len(), 9);
    assert_eq!(answer["finish_reason"], "length");
    assert!(answer["text"].as_str().expect("text").starts_with(", there was"));
    let timings = answer["timings"].as_object().expect("timings");
    for key in ["load_s", "compile_s", "prefill_s", "decode_s"] {
        assert!(timings[key].as_f64().expect(key) >= 0.0);
    }
    assert_eq!(timings["prefill_tokens"], 5);
    assert_eq!(timings["decode_tokens"], 8);
}

#[test]
fn prompts_come_from_one_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prompt");
    fs::write(&file, "Once upon a time").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let tail = ["--greedy", "-n", "8", "--json", "--device", "cpu"];
    let of = |args: &[&str]| json_of(&[&["generate"], args, &tail].concat())["tokens"].clone();
    let expected = of(&["Once upon a time"]);
    assert_eq!(of(&["--prompt-file", file]), expected);
    assert_eq!(of(&["--prompt-tokens", "1,403,407,261,378"]), expected);
    // A start token that the text names is the one that is added otherwise.
    assert_eq!(of(&["<s>Once upon a time", "--raw"]), expected);
    let (code, out, _) = run_with_stdin(&[&["generate"], &tail[..]].concat(), b"Once upon a time");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &answer["tokens"]), (0, &expected));
    fails(&["generate", "one", "--prompt-file", file], 2, &["--prompt-file"]);
    fs::write(file, [b'a', 0xff, b'b']).expect("a file");
    fails(&["generate", "--prompt-file", file], 2, &["UTF-8", "--prompt-file", file]);
    let (code, _, err) = run_with_stdin(&["generate"], &[0xff]);
    assert_eq!(code, 2, "{err}");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed: &str, device: &str| {
        let (code, out, err) = run(&["generate", "Once", "--seed", seed, "-n", "40", "--device", device]);
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(story("1", "cpu"), story("1", "cpu"));
    assert_ne!(story("1", "cpu"), story("2", "cpu"));
    let (_, _, err) = run(&[&["generate", "Once", "-n", "1"], CPU].concat());
    assert!(err.contains("seed "), "a random seed is said: {err}");
    // Filters that leave one candidate make it greedy, whatever the seed.
    let greedy = run(&[&["generate", "Once", "--greedy", "-n", "30"], CPU].concat()).1;
    for only in [["--top-k", "1"], ["--top-p", "0.000001"], ["--min-p", "1"], ["--temperature", "0"]] {
        assert_eq!(run(&[&["generate", "Once", "-n", "30"], &only[..], CPU].concat()).1, greedy, "{only:?}");
    }
}

#[test]
fn a_generation_ends_where_it_should() {
    let of = |args: &[&str]| {
        json_of(&[&["generate", "Once upon a time", "--greedy", "--json"], args, CPU].concat())
    };
    let stopped = of(&["--stop", "little", "--stop", "never"]);
    assert_eq!((&stopped["text"], &stopped["finish_reason"]), (&json!(", there was a "), &json!("stop")));
    let full = of(&["--ctx", "20"]);
    assert_eq!(
        (full["tokens"].as_array().expect("ids").len(), &full["finish_reason"]),
        (15, &json!("length"))
    );
    assert_eq!(of(&["-n", "0"])["tokens"], json!([]));
    // The token that ends the text counts, and is not part of it.
    let ending = configured(json!({"eos_token_id": [999_999, 432]}));
    let folder = ending.path().to_str().expect("UTF-8");
    let ended = of(&["--model", folder, "-n", "40"]);
    let tokens = ended["tokens"].as_array().expect("ids");
    assert_eq!((ended["finish_reason"].as_str(), tokens.len() < 40), (Some("stop"), true), "{ended}");
    let (_, _, err) = run(&[&["generate", "Once", "-n", "1", "--model", folder], CPU].concat());
    assert!(err.contains("999999"), "an end beyond the vocabulary is named: {err}");
}

#[test]
fn wrong_requests_exit_2() {
    let generate =
        |args: &[&str], words: &[&str]| fails(&[&["generate", "--device", "cpu"], args].concat(), 2, words);
    generate(&["--prompt-tokens", "1,512"], &["512", "vocabulary"]);
    generate(&["--prompt-tokens", "1,x"], &["--prompt-tokens"]);
    generate(&["", "--raw"], &["empty"]);
    generate(&["a", "--ctx", "0"], &["--ctx"]);
    generate(&["a", "--ctx", "513"], &["--ctx", "513", "512"]);
    generate(&["a", "--temperature", "-1"], &["--temperature"]);
    generate(&["a", "--temperature", "nan"], &["--temperature"]);
    generate(&["a", "--top-p", "0"], &["--top-p"]);
    generate(&["a", "--min-p", "-0.1"], &["--min-p"]);
    generate(&["a", "--threads", "0"], &["--threads"]);
    generate(&["a", "--greedy", "--temperature", "1"], &["--greedy"]);
    generate(&["one two three four five", "--ctx", "4"], &["context", "--ctx"]);
    generate(&["--prompt-file", "/nonexistent"], &["/nonexistent"]);
    fails(&["perplexity", "--file", "/nonexistent"], 2, &["/nonexistent"]);
    fails(&["perplexity"], 2, &["--file"]);
    fails(&["sing"], 2, &["sing"]);
    fails(&[], 2, &["Usage"]);
}

#[test]
fn wrong_devices_exit_4() {
    fails(&["generate", "a", "--device", "voodoo2"], 4, &["voodoo2", "cpu"]);
    fails(&["generate", "a", "--device", "99"], 4, &["99"]);
    fails(&["generate", "a", "--device", ""], 4, &["no device"]);
    fails(&["generate", "a", "--device", "cpu", "--require-gpu"], 4, &["--require-gpu"]);
}

/// Each with exit 3, one sentence, and little memory: a limit on the address space would show.
#[test]
fn bad_models_exit_3() {
    let check = |folder: &TempDir, words: &[&str]| {
        let folder = folder.path().to_str().expect("UTF-8");
        fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, words);
        fails(
            &["perplexity", "--file", concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE"), "--model", folder],
            3,
            words,
        );
    };
    let rewritten = |name: &'static str, content: &[u8]| {
        model(|folder| fs::write(folder.join(name), content).expect("a file"))
    };
    let without = |name: &'static str| model(|folder| fs::remove_file(folder.join(name)).expect("a file"));
    let weights = fs::read(Path::new(DEMO).join("model.safetensors")).expect("weights");
    for (content, what) in [
        (&weights[..weights.len() / 2], "cut in the middle"),
        (&weights[..5], "cut in the length"),
        (&[][..], "empty"),
        (b"garbage that is no safetensors file", "garbage"),
        (&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "a header beyond the file"),
        (&[&80_000_000_u64.to_le_bytes()[..], b"{}"].concat(), "a header beyond the file"),
        (&[&weights[..], b"more"].concat(), "bytes behind the last tensor"),
    ] {
        let folder = rewritten("model.safetensors", content);
        let folder = folder.path().to_str().expect("UTF-8");
        let (code, _, err) = run(&["generate", "a", "--device", "cpu", "--model", folder]);
        assert!(code == 3 && err.contains("model.safetensors"), "{what}: {code} {err}");
    }
    check(&rewritten("config.json", b"{"), &["config.json", "JSON"]);
    check(&rewritten("config.json", b"[]"), &["config.json", "object"]);
    check(&rewritten("config.json", b"{}"), &["model_type", "llama"]);
    check(&rewritten("tokenizer.json", b"{}"), &["tokenizer.json"]);
    check(&rewritten("tokenizer.json", b"\xff\xfe"), &["tokenizer.json"]);
    check(&without("config.json"), &["config.json"]);
    check(&without("tokenizer.json"), &["tokenizer"]);
    check(&without("model.safetensors"), &["model.safetensors"]);
    check(&configured(json!({"model_type": "mamba"})), &["mamba", "gpt2", "llama", "mistral"]);
    check(&configured(json!({"hidden_act": "mish"})), &["mish", "silu", "gelu_new"]);
    check(&configured(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}})), &["dynamic", "yarn"]);
    check(&configured(json!({"rope_scaling": {"rope_type": "linear"}})), &["factor"]);
    check(&configured(json!({"num_attention_heads": 0})), &["num_attention_heads"]);
    check(&configured(json!({"num_attention_heads": 7})), &["num_attention_heads"]);
    check(&configured(json!({"num_key_value_heads": 3})), &["num_key_value_heads"]);
    check(&configured(json!({"num_hidden_layers": 4_000_000_000_u64})), &["num_hidden_layers"]);
    check(&configured(json!({"num_hidden_layers": 10_000})), &["missing"]);
    check(&configured(json!({"num_hidden_layers": -1})), &["num_hidden_layers"]);
    check(&configured(json!({"vocab_size": "many"})), &["vocab_size"]);
    check(&configured(json!({"vocab_size": 513})), &["model.embed_tokens.weight", "mis-shaped", "[513, 64]"]);
    check(&configured(json!({"head_dim": 3})), &["head_dim"]);
    check(&configured(json!({"rms_norm_eps": -1e-5})), &["rms_norm_eps"]);
    check(&configured(json!({"rms_norm_eps": 1e300})), &["rms_norm_eps"]);
    check(&configured(json!({"rope_theta": 0})), &["rope_theta"]);
    check(&configured(json!({"rope_scaling": {"type": "linear", "factor": 1e-308}})), &["factor"]);
    for wrong in ["{\"temperature\": -1}", "{\"top_p\": 2}", "[]", "{"] {
        check(&rewritten("generation_config.json", wrong.as_bytes()), &["generation_config.json"]);
    }
    check(&configured(json!({"head_dim": 65536, "num_attention_heads": 65536})), &["head_dim"]);
    check(&configured(json!({"tie_word_embeddings": false})), &["lm_head.weight", "missing"]);
    check(&configured(json!({"attention_bias": true})), &["q_proj.bias", "missing"]);
    let torch = model(|folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).expect("a file");
    });
    check(&torch, &["safetensors", "pytorch_model.bin"]);
    fails(&["generate", "a", "--model", "no/such/model"], 3, &["no/such/model"]);
    fails(&["inspect", "--model", "/dev/null"], 3, &["/dev/null"]);
    let index = model(|folder| {
        fs::remove_file(folder.join("model.safetensors")).expect("a file");
        let map = json!({"weight_map": {"model.norm.weight": "../model-1.safetensors"}});
        fs::write(folder.join("model.safetensors.index.json"), map.to_string()).expect("a file");
    });
    check(&index, &["model.safetensors.index.json"]);
}

/// Weights that are no numbers: an error on every device, not a text.
#[test]
fn logits_that_are_not_numbers_exit_1() {
    let damaged = model(|folder| {
        let file = folder.join("model.safetensors");
        let mut bytes = fs::read(&file).expect("weights");
        let end = bytes.len();
        bytes[end - 60_000..].fill(0xff);
        fs::write(file, bytes).expect("a file");
    });
    let folder = damaged.path().to_str().expect("UTF-8");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE");
    let devices =
        if run(&["devices", "--json"]).1.contains("llvmpipe") { &["cpu", "llvmpipe"][..] } else { &["cpu"] };
    for device in devices {
        for how in ["--greedy", "--seed=1"] {
            fails(&["generate", "a", how, "--model", folder, "--device", device], 1, &["not numbers"]);
        }
        fails(&["perplexity", "--file", text, "--model", folder, "--device", device], 1, &["not numbers"]);
    }
}

/// Tensors that the model has no use for are named, and the rest runs.
#[test]
fn unexpected_tensors_are_a_warning() {
    let fewer = configured(json!({"num_hidden_layers": 4}));
    let folder = fewer.path().to_str().expect("UTF-8");
    let (code, _, err) = run(&["generate", "a", "-n", "1", "--device", "cpu", "--model", folder]);
    assert!(
        code == 0 && err.contains("model.layers.4.mlp.up_proj.weight") && err.contains("unexpected"),
        "{err}"
    );
}

#[test]
fn a_context_that_memory_cannot_hold_exits_5() {
    let long = configured(json!({"max_position_embeddings": 16_000_000, "num_key_value_heads": 4}));
    let folder = long.path().to_str().expect("UTF-8");
    let gpu = run(&["devices", "--json"]).1.contains("llvmpipe");
    if gpu {
        let args = ["generate", "a", "--model", folder, "--ctx", "16000000", "--device", "llvmpipe"];
        fails(&args, 5, &["--ctx"]);
    }
}

#[test]
fn perplexity_scores_each_token_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("text");
    fs::write(&file, "Once upon a time, there was a little girl named Lily. She loved to play outside.")
        .expect("a file");
    let file = file.to_str().expect("UTF-8");
    let score = json_of(&[&["perplexity", "--file", file, "--json"], CPU].concat());
    let numbers = |score: &Value, key: &str| -> Vec<f64> {
        score[key].as_array().expect(key).iter().map(|n| n.as_f64().expect("a number")).collect()
    };
    let (tokens, logprobs) = (numbers(&score, "tokens"), numbers(&score, "logprobs"));
    assert_eq!((tokens[0], logprobs.len()), (1.0, tokens.len() - 1));
    let nll = -logprobs.iter().sum::<f64>() / logprobs.len() as f64;
    assert!((score["nll"].as_f64().expect("nll") - nll).abs() < 1e-9);
    assert!((score["perplexity"].as_f64().expect("perplexity") - nll.exp()).abs() < 1e-6);
    assert!(nll < 1.5, "a story of its own kind: {nll}");
    // Windows: the first one's tokens score as before, later ones with less before them.
    let args = ["perplexity", "--file", file, "--json", "--ctx", "8", "--stride", "3"];
    let windowed = numbers(&json_of(&[&args, CPU].concat()), "logprobs");
    assert_eq!(windowed.len(), logprobs.len());
    assert!(windowed[..7].iter().zip(&logprobs).all(|(a, b)| (a - b).abs() < 1e-9));
    assert!(windowed[7..] != logprobs[7..]);
    // Each window is what the model says of it alone: tokens 6..14 hold 8, 9 and 10 of which 11, 12, 13 are new.
    let (code, out, _) = run(&[&["perplexity", "--file", file], CPU].concat());
    assert_eq!((code, out.trim().parse::<f64>().expect("a number") > 1.0), (0, true));
    for stride in ["0", "8"] {
        fails(
            &["perplexity", "--file", file, "--ctx", "8", "--stride", stride, "--device", "cpu"],
            2,
            &["--stride"],
        );
    }
}

#[test]
fn perplexity_compares_two_models() {
    let folder = tempfile::tempdir().expect("a folder");
    let [text, packed] = ["text", "packed.gguf"].map(|name| folder.path().join(name).display().to_string());
    fs::write(&text, "Once upon a time, there was a little girl named Lily. She loved to play.")
        .expect("a file");
    let (code, _, err) = run(&["quantize", DEMO, &packed, "--format", "q4_0"]);
    assert_eq!(code, 0, "{err}");
    let compare = |model: &str, other: &str| {
        let args = ["perplexity", "--file", &text, "-m", model, "--against", other, "--json", "--ctx", "16"];
        json_of(&[&args[..], CPU].concat())
    };
    let number = |found: &Value, key: &str| found["against"][key].as_f64().expect("a number");
    let same = compare(DEMO, DEMO);
    assert_eq!((number(&same, "kl"), number(&same, "same_top")), (0.0, 1.0));
    assert!(
        (number(&same, "perplexity") / same["perplexity"].as_f64().expect("a number") - 1.0).abs() < 1e-9
    );
    let less = compare(&packed, DEMO);
    assert_eq!(less["against"]["perplexity"], same["perplexity"]);
    assert_ne!(less["perplexity"], same["perplexity"]);
    assert!((1e-4..0.5).contains(&number(&less, "kl")), "{}", less["against"]);
    assert!((0.5..=1.0).contains(&number(&less, "same_top")), "{}", less["against"]);
    let fixture = path("fixtures/models/gpt2");
    let other = fixture.to_str().expect("UTF-8");
    fails(
        &["perplexity", "--file", &text, "--against", other, "--device", "cpu"],
        2,
        &["--against", "tokens"],
    );
}

#[test]
fn devices_are_listed_with_one_chosen() {
    let devices = json_of(&["devices", "--json"]);
    let devices = devices.as_array().expect("an array");
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device["index"], index);
        for key in ["name", "backend", "type", "driver", "features", "limits", "score", "chosen"] {
            assert!(!device[key].is_null(), "{key} of {device}");
        }
    }
    assert_eq!(devices.iter().filter(|d| d["chosen"] == true).count(), 1);
    assert!(devices.last().is_some_and(|d| d["backend"] == "cpu"));
    assert!(run(&["devices"]).1.contains("CPU"));
}

#[test]
fn inspect_says_what_is_in_a_checkpoint() {
    let demo = json_of(&["inspect", "--json"]);
    assert_eq!(
        (&demo["family"], &demo["n_layers"], &demo["parameters"]),
        (&json!("llama"), &json!(5), &json!(260_032))
    );
    let fixture = path("fixtures/models/llama-mixed-dtypes");
    let (code, out, err) = run(&["inspect", "--tensors", "--model", fixture.to_str().expect("UTF-8")]);
    assert_eq!(code, 0, "a folder without a tokenizer can be inspected: {err}");
    for word in ["llama", "BF16", "F16", "F32", "lm_head.weight"] {
        assert!(out.contains(word), "{word}: {out}");
    }
}

#[test]
fn the_version_names_the_commit() {
    let (code, out, _) = run(&["--version"]);
    assert!(code == 0 && out.starts_with(concat!("wgpt ", env!("CARGO_PKG_VERSION"))), "{out}");
}

/// `wgpt generate … | head -1` ends quietly.
#[test]
fn a_closed_pipe_is_no_error() {
    let mut child =
        wgpt(&["generate", "Once", "-n", "500", "--quiet", "--device", "cpu"]).spawn().expect("it starts");
    let mut first = [0; 8];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("a beginning");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr)), (Some(0), "".into()));
}

/// Ctrl-C ends the output cleanly.
#[cfg(unix)]
#[test]
fn sigint_ends_with_130() {
    // A long text: the model is fast, and its end would come first.
    let args = ["generate", "Once", "-n", "500", "--quiet", "--temperature", "1.5", "--checked", "--device"];
    let device = if run(&["devices", "--json"]).1.contains("llvmpipe") { "llvmpipe" } else { "cpu" };
    let mut child = wgpt(&[&args[..], &[device]].concat()).spawn().expect("it starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 8]).expect("a beginning");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("whole characters");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A folder with vocab.json and merges.txt instead of tokenizer.json, as GPT-1 and GPT-2 were published.
#[test]
fn published_vocabularies_are_read() {
    let Some(tokenizer) = shared("tokenizers/gpt2") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = path("fixtures/models/gpt2");
    for (from, name) in [
        (&fixture, "config.json"),
        (&fixture, "model.safetensors"),
        (&tokenizer, "vocab.json"),
        (&tokenizer, "merges.txt"),
    ] {
        fs::copy(from.join(name), folder.path().join(name)).expect("a copy");
    }
    let folder = folder.path().to_str().expect("UTF-8");
    let answer = json_of(&[
        "generate",
        "--prompt-tokens",
        "1,2,3",
        "-n",
        "3",
        "--model",
        folder,
        "--json",
        "--device",
        "cpu",
    ]);
    assert_eq!(answer["tokens"].as_array().expect("ids").len(), 3);
    // Its real ids are beyond this model's 61.
    fails(&["generate", "Hello, world!", "--model", folder, "--device", "cpu"], 2, &["15496"]);
}

#[test]
fn quantize_writes_a_file_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("demo.gguf");
    let output = output.to_str().expect("UTF-8");
    let (code, out, err) = run(&["quantize", DEMO, output, "--format", "Q8_0"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("36 matrices to q8_0, 5 of them to a format with smaller blocks"), "{err}");
    let inspected = json_of(&["inspect", "--json", "--model", output]);
    let count = |dtype: &str| {
        inspected["tensors"].as_array().expect("a list").iter().filter(|t| t["dtype"] == dtype).count()
    };
    assert_eq!((count("Q8_0"), count("F16"), count("F32")), (31, 5, 11));
    let bits = inspected["bits_per_weight"].as_f64().expect("a number");
    assert!((8.5..10.5).contains(&bits), "{bits}");
    // What inspect foretells of a folder is what the file holds, but for norms, which are f32 in it.
    let foretold = json_of(&["inspect", "--json", "--model", DEMO, "--quantize", "q8_0"]);
    assert_eq!(foretold["size_bytes"], inspected["size_bytes"]);
    let generate = |model: &[&str]| {
        let args = [&["generate", "Once upon a time", "--greedy", "-n", "40"], CPU, model].concat();
        let (code, out, err) = run(&args);
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(generate(&["--model", output]), generate(&["--model", DEMO, "--quantize", "q8_0"]));
    // Quantised again, onto itself.
    let (code, _, err) = run(&["quantize", output, output, "--format", "q4_0"]);
    assert_eq!(code, 0, "{err}");
    generate(&["--model", output]);
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn quantize_refuses_what_it_cannot_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("out.gguf");
    let output = output.to_str().expect("UTF-8");
    fails(&["quantize", DEMO, output, "--format", "q9_9"], 2, &["q9_9", "q4_k"]);
    fails(&["quantize", DEMO, output], 2, &["--format"]);
    fails(&["generate", "a", "--quantize", "q9_9"], 2, &["q9_9", "q4_k"]);
    fails(&["quantize", "/nowhere", output, "--format", "q8_0"], 3, &["/nowhere"]);
    fails(&["quantize", DEMO, "/nowhere/out.gguf", "--format", "q8_0"], 1, &["/nowhere/out.gguf"]);
    let gpt1 = path("fixtures/models/gpt1");
    let gpt1 = gpt1.to_str().expect("UTF-8");
    fails(&["quantize", gpt1, output, "--format", "q8_0"], 3, &["openai-gpt", "at load only"]);
    // A tokenizer that GGUF has no name for: another expression between words.
    let odd = model(|folder| {
        let file = folder.join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&file).expect("a tokenizer")).expect("JSON");
        json["model"]["byte_fallback"] = json!(false);
        json["normalizer"] = Value::Null;
        json["decoder"] = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "[a-m]+"}, "behavior": "Isolated",
            "invert": false});
        fs::write(file, json.to_string()).expect("a file");
    });
    let odd = odd.path().to_str().expect("UTF-8");
    fails(&["quantize", odd, output, "--format", "q8_0"], 3, &["tokenizer", "at load only"]);
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// GGUF files that are damaged or beyond what is read: one sentence, and 3.
#[test]
fn gguf_files_that_cannot_be_run_are_refused() {
    use wgpt::weights::Writer;
    let folder = tempfile::tempdir().expect("a folder");
    let good = folder.path().join("good.gguf");
    let (code, _, err) = run(&["quantize", DEMO, good.to_str().expect("UTF-8"), "--format", "q8_0"]);
    assert_eq!(code, 0, "{err}");
    let bytes = fs::read(&good).expect("a file");
    let refused = |what: &[u8], words: &[&str]| {
        let file = folder.path().join("bad.gguf");
        fs::write(&file, what).expect("a file");
        let file = file.to_str().expect("UTF-8");
        for command in [&["generate", "a"][..], &["inspect"], &["quantize"]] {
            let args = match command {
                ["quantize"] => vec!["quantize", file, "/dev/null/out.gguf", "--format", "q4_0"],
                command => [command, &["--model", file]].concat(),
            };
            fails(&args, 3, words);
        }
    };
    refused(&bytes[..bytes.len() - 1000], &["bad.gguf", "past the end"]);
    refused(&bytes[..1000], &["bad.gguf", "damaged"]);
    refused(&[&b"GGML"[..], &bytes[4..]].concat(), &["bad.gguf", "GGUF"]);
    refused(&[&b"GGUF\0\0\0\x03"[..], &bytes[8..]].concat(), &["big-endian"]);
    refused(&[&b"GGUF\x01\0\0\0"[..], &bytes[8..]].concat(), &["version 1"]);
    refused(&[&bytes[..8], &[0xff; 8], &bytes[16..]].concat(), &["tensors"]);
    refused(&[&bytes[..16], &[0xff; 8], &bytes[24..]].concat(), &["metadata"]);
    let mut other = Writer::default();
    other.text("general.architecture", "mamba");
    refused(&other.header(), &["general.architecture", "mamba", "llama"]);
    // A whole model whose tokenizer is not: its parts go by other names.
    for missing in ["tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.model"] {
        let at = bytes.windows(missing.len()).position(|w| w == missing.as_bytes()).expect("the key");
        let mut renamed = bytes.clone();
        renamed[at + missing.len() - 1] = b'_';
        let file = folder.path().join("bad.gguf");
        fs::write(&file, renamed).expect("a file");
        fails(&["generate", "a", "--model", file.to_str().expect("UTF-8")], 3, &[missing]);
    }
}

#[test]
fn plan_says_what_a_model_takes() {
    let plan = |more: &[&str]| json_of(&[&["plan", "--json"], more].concat());
    let of = |plan: &Value, key: &str| plan[key].as_u64().unwrap_or_else(|| panic!("{key} in {plan}"));
    let on_cpu = plan(CPU);
    let [weights, cache, activations] =
        ["weights_bytes", "cache_bytes", "activation_bytes"].map(|key| of(&on_cpu, key));
    assert_eq!(of(&on_cpu, "total_bytes"), weights + cache + activations);
    // A key and a value of 4 heads of 8 in f32, in 5 layers, for each of 512 positions.
    assert_eq!(cache, 2 * 4 * 8 * 4 * 5 * 512);
    assert!((1_040_128..1_100_000).contains(&weights), "{weights}");
    assert_eq!(of(&on_cpu, "max_context"), 512);
    // A layer: qkv, attention, out, up, down. In a prefill norms, rope and the cache are passes of their own.
    assert_eq!(of(&on_cpu, "passes_per_layer_decode"), 5);
    assert_eq!(of(&on_cpu, "passes_decode"), 5 * 5 + 3);
    assert_eq!(of(&on_cpu, "passes_prefill"), 5 * 9 + 4);
    let shorter = plan(&[CPU, &["--ctx", "64"]].concat());
    assert_eq!(of(&shorter, "cache_bytes"), cache / 8);
    let quantised = plan(&[CPU, &["--quantize", "q4_0"]].concat());
    assert!(of(&quantised, "weights_bytes") < weights / 3);
    let (code, listing, err) = run(&[&["plan"], CPU].concat());
    assert_eq!(code, 0, "{err}");
    assert!(listing.contains("attention") && listing.contains("8 heads of 8 over 4"), "{listing}");
    fails(&[&["plan", "--ctx", "513"], CPU].concat(), 2, &["--ctx", "512"]);
}

/// Every kernel as defined, on each device there is.
#[test]
fn verify_finds_every_kernel_as_defined() {
    let devices = ["cpu".to_owned()].into_iter().chain(crate::support::adapter_name());
    for device in devices {
        let found = json_of(&["verify", "--json", "--device", &device]);
        assert_eq!(found["ok"], json!(true), "{found}");
        let checks = found["checks"].as_array().expect("a list");
        for kernel in ["embed", "norm", "matmul", "rope", "kv_write", "attention", "sample"] {
            assert!(checks.iter().any(|check| check["kernel"] == kernel), "{kernel}");
        }
        for format in wgpt::weights::Format::ALL {
            let named = |check: &&Value| check["variant"].as_str().expect("words").contains(format.name());
            assert!(checks.iter().filter(named).count() >= 4, "{format:?}");
        }
        for check in checks {
            assert!(check["max_error"].as_f64() <= check["tolerance"].as_f64(), "{check}");
        }
    }
}

#[test]
fn bench_says_tokens_per_second_and_bytes() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let sizes = Sizes { rows: [8, 8], outputs: 1, sequences: 1, context: 8, blocks: 1 };
    let plans = plans(&model, &Capabilities::webgpu(), sizes).expect("plans");
    let devices = ["cpu".to_owned()].into_iter().chain(crate::support::adapter_name());
    for device in devices {
        let args = [
            "bench",
            "-p",
            "8",
            "-n",
            "4",
            "-d",
            "0,40",
            "-b",
            "1,2",
            "-r",
            "2",
            "--device",
            &device,
            "--profile",
            "-o",
            "json",
        ];
        let found = json_of(&args);
        let names: Vec<_> = found["results"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|r| r["test"].as_str().expect("a name"))
            .collect();
        assert_eq!(
            names,
            ["pp8", "tg4", "pp8 @ d40", "tg4 @ d40", "pp8 b2", "tg4 b2", "pp8 @ d40 b2", "tg4 @ d40 b2"]
        );
        for result in found["results"].as_array().expect("a list") {
            for key in ["tokens", "tps_mean", "gb_s", "bandwidth_share"] {
                assert!(result[key].as_f64().is_some_and(|n| n > 0.0), "{key} in {result}");
            }
            assert!(result["tps_sd"].as_f64().is_some_and(|n| n >= 0.0), "{result}");
            let profile = result["profile"].as_array().expect("a profile");
            let share: f64 = profile.iter().map(|p| p["share"].as_f64().expect("a share")).sum();
            assert!((share - 1.0).abs() < 1e-6, "{result}");
            let passes: u64 = profile.iter().map(|p| p["passes"].as_u64().expect("a number")).sum();
            let plan = if result["test"].as_str().expect("a name").starts_with("pp") {
                &plans.prefill
            } else {
                &plans.decode
            };
            assert_eq!(passes, plan.passes.len() as u64, "all of the plan's: {result}");
        }
        assert_eq!(found["results"][4]["tokens"], json!(16));
        assert!(found["bandwidth_gb_s"].as_f64().is_some_and(|n| n > 0.1), "{found}");
        assert_eq!(found["params"], json!(260_032));
        assert_eq!(found["device"]["backend"] == "cpu", device == "cpu");
    }
    let args = ["bench", "--shape", "gpt2", "--format", "q8_0", "-p", "4", "-n", "0", "-r", "1", "-o", "csv"];
    let (code, out, err) = run(&[&args[..], CPU].concat());
    assert_eq!(code, 0, "{err}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[1].contains("gpt2 q8_0") && lines[1].contains(",pp4,4,"), "{out}");
    fails(&["bench", "-p", "0", "-n", "0"], 2, &["-p", "-n"]);
    fails(&["bench", "--shape", "gpt9"], 2, &["gpt9", "gpt2-xl"]);
    fails(&["bench", "-d", "600", "--device", "cpu"], 2, &["1112", "512"]);
}

#[test]
fn shells_and_the_manual_know_every_command() {
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["man"]] {
        let (code, out, err) = run(args);
        assert_eq!(code, 0, "{err}");
        for word in ["generate", "chat", "perplexity", "quantize", "top-p", "ctx"] {
            let plain = out.replace("\\-", "-");
            assert!(plain.contains(word), "{args:?} should name {word}");
        }
    }
    fails(&["completions", "cobol"], 2, &["cobol", "bash"]);
}

/// Biases, bans and what refuses them; a token that would end the text is a token like any other.
#[test]
fn biases_and_bans_say_what_is_drawn() {
    let tokens = |more: &[&str]| {
        let args = [&["generate", "Once upon a time", "-n", "6", "--json"], CPU, more].concat();
        let answer = json_of(&args);
        let tokens: Vec<u32> = serde_json::from_value(answer["tokens"].clone()).expect("ids");
        (tokens, answer["finish_reason"].as_str().expect("a reason").to_owned())
    };
    let (plain, _) = tokens(&["--greedy"]);
    assert_eq!(tokens(&["--logit-bias", "261=1000", "--seed", "5"]).0, [261; 6]);
    assert_eq!(tokens(&["--logit-bias", "261+1000", "--greedy"]).0, [261; 6]);
    let banned = plain.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let (others, _) = tokens(&["--greedy", "--ban", &banned]);
    assert!(others.iter().all(|id| !plain.contains(id)), "{others:?} {plain:?}");
    assert_eq!(tokens(&["--logit-bias", "2=1000"]), (vec![2], "stop".to_owned()));
    let (unended, reason) = tokens(&["--logit-bias", "2=1000", "--ignore-eos"]);
    assert!(unended.len() == 6 && !unended.contains(&2) && reason == "length", "{unended:?}");
    let flags = ["--typical", "0.9", "--xtc-probability", "0.5", "--dry-multiplier", "0.8", "--seed", "3"];
    assert_eq!(tokens(&flags), tokens(&flags));
    assert_eq!(tokens(&["--mirostat", "2", "--mirostat-ent", "2", "--seed", "3"]).0.len(), 6);
    for (args, words) in [
        (["--logit-bias", "9999=1"], ["9999", "511"]),
        (["--ban", "512"], ["512", "511"]),
        (["--logit-bias", "a=1"], ["15=-1.5", "--logit-bias"]),
        (["--mirostat", "1"], ["--mirostat", "2"]),
        (["--xtc-probability", "2"], ["--xtc-probability", "from 0 to 1"]),
        (["--typical", "0"], ["--typical", "above 0"]),
        (["--dry-base", "nan"], ["--dry-base", "1 or above"]),
    ] {
        fails(&[&["generate", "a", "--device", "cpu"], &args[..]].concat(), 2, &words);
    }
}

#[test]
fn stats_say_what_an_answer_took() {
    let args = [&["generate", "Once upon a time", "-n", "9", "--greedy", "--stats"][..], CPU].concat();
    let (code, out, err) = run(&args);
    assert_eq!(code, 0, "{err}");
    for words in [
        "loading ",
        "5 tokens in",
        "8 tokens in",
        "a second",
        "GB/s while",
        "1.0 MiB of weights",
        "for 512 tokens",
    ] {
        assert!(err.contains(words) && !out.contains(words), "{words}: {err}");
    }
}
