//! `wgpt generate`: its output, the sources of prompts, and how it ends.

use super::*;

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
    // A start token that the text spells out is the same token that is otherwise added.
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
    // Filters that leave one candidate give the greedy text, whatever the seed.
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
    // The token that ends the text is counted, but is not part of the text.
    let ending = configured(json!({"eos_token_id": [999_999, 432]}));
    let folder = ending.path().to_str().expect("UTF-8");
    let ended = of(&["--model", folder, "-n", "40"]);
    let tokens = ended["tokens"].as_array().expect("ids");
    assert_eq!((ended["finish_reason"].as_str(), tokens.len() < 40), (Some("stop"), true), "{ended}");
    let (_, _, err) = run(&[&["generate", "Once", "-n", "1", "--model", folder], CPU].concat());
    assert!(err.contains("999999"), "an end beyond the vocabulary is named: {err}");
}

/// Biases, bans, and values that are refused. --ignore-eos makes the end token impossible.
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
        (["--dry-base", "nan"], ["--dry-base", "from 1 to 1000000"]),
    ] {
        fails(&[&["generate", "a", "--device", "cpu"], &args[..]].concat(), 2, &words);
    }
}

/// Each generation_config.json of tests/fixtures/advice.py gives the tokens that it gives in transformers,
/// and a flag beats it.
#[test]
fn advice_is_followed_as_transformers_follows_it() {
    let advised = |advice: &Value| {
        model(|folder| fs::write(folder.join("generation_config.json"), advice.to_string()).expect("a file"))
    };
    let generate = |folder: &TempDir, args: &[&str]| {
        let folder = folder.path().to_str().expect("UTF-8");
        json_of(&[&["generate", "--json", "--model", folder, "--raw"], args, CPU].concat())
    };
    let cases: Vec<Value> =
        serde_json::from_slice(&fs::read(path("fixtures/advice.json")).expect("a file")).expect("JSON");
    assert_eq!(cases.len(), 19);
    for case in cases {
        let (advice, prompt) = (&case["advice"], case["prompt"].as_str().expect("a text"));
        let says_how_long = ["max_new_tokens", "max_length"].iter().any(|field| advice.get(field).is_some());
        let most = if says_how_long { &[][..] } else { &["-n", "40"] };
        let folder = advised(advice);
        let answer = generate(&folder, &[&[&*format!("<s>{prompt}")], most].concat());
        let tokens = answer["tokens"].as_array().expect("ids");
        assert_eq!(tokens.len() as u64, case["count"].as_u64().expect("a number"), "{advice}");
        let expected = case["tokens"].as_array().expect("ids");
        assert_eq!(tokens[..expected.len()], expected[..], "{advice}");
    }
    let folder = advised(&json!({
        "do_sample": false, "max_new_tokens": 5, "stop_strings": [","], "suppress_tokens": [383, 9999],
        "bad_words_ids": [["a word"]], "min_new_tokens": 4,
    }));
    let prompt = "<s>Once upon a time";
    assert_eq!(generate(&folder, &[prompt])["tokens"], json!([432]));
    let plain = ["--stop", "!", "-n", "6", "--logit-bias", "383=0"];
    assert_eq!(
        generate(&folder, &[&[prompt][..], &plain].concat())["tokens"],
        json!([432, 383, 286, 261, 376, 298])
    );
    let folder = folder.path().to_str().expect("UTF-8");
    let (_, _, err) = run(&[&["generate", prompt, "--model", folder], CPU].concat());
    for words in ["9999", "bad_words_ids is [[\"a word\"]]", "not followed: min_new_tokens"] {
        assert!(err.contains(words), "{words}: {err}");
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
    // The vocabulary's ids exceed this model's 61 tokens.
    fails(&["generate", "Hello, world!", "--model", folder, "--device", "cpu"], 2, &["15496"]);
}

/// `wgpt generate … | head -1` ends without an error.
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
    // A high temperature makes the text long, so that it does not end before the signal.
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

/// An image goes where the prompt has its token, or before the prompt. The ids are those of transformers'
/// processor.
#[test]
fn generate_sees_images() {
    fails(&["generate", "--image", "Cargo.toml", "x"], 2, &["Cargo.toml", "PNG, JPEG"]);
    fails(&["generate", "--image", "no.png", "x"], 2, &["no.png"]);
    let Some(folder) = shared("models/shapes-llava") else { return };
    let (model, image) = (folder.to_str().expect("UTF-8"), folder.join("examples/02.png"));
    let image = image.to_str().expect("UTF-8");
    fails(&[&["generate", "--image", image, "x"], CPU].concat(), 2, &["sees no images"]);
    let expected: Value =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).expect("expected.json"))
            .expect("JSON");
    let (expected, args) = (&expected[2], ["generate", "-m", model, "--greedy", "--json"]);
    let prompt = expected["prompt"].as_str().expect("a prompt");
    let said = json_of(&[&args[..], &["--image", image, prompt], CPU].concat());
    for key in ["prompt_tokens", "tokens"] {
        assert_eq!(said[key], expected[key], "{key}");
    }
    // The expanded ids of such a prompt can be given as a prompt again.
    let ids = said["prompt_tokens"]
        .as_array()
        .expect("ids")
        .iter()
        .map(Value::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let again = json_of(&[&args[..], &["--image", image, "--prompt-tokens", &ids], CPU].concat());
    assert_eq!(again["tokens"], said["tokens"]);
    let two = [&["generate", "-m", model, "--image", image, "--image", image, prompt], CPU].concat();
    fails(&two, 2, &["images given: 2, places for them in the prompt: 1"]);
    fails(&["quantize", model, "/dev/null", "--format", "q8_0"], 3, &["the family llava", "--quantize"]);
}
