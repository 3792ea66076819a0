//! All commands except `generate`.

use super::*;

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
    // Windows: tokens of the first window score as before, later ones have fewer tokens before them.
    let args = ["perplexity", "--file", file, "--json", "--ctx", "8", "--stride", "3"];
    let windowed = numbers(&json_of(&[&args, CPU].concat()), "logprobs");
    assert_eq!(windowed.len(), logprobs.len());
    assert!(windowed[..7].iter().zip(&logprobs).all(|(a, b)| (a - b).abs() < 1e-9));
    assert!(windowed[7..] != logprobs[7..]);
    // Without --json, only the perplexity goes to stdout.
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

/// Devices chosen by API, alone or with a name. A software device is used only when it is named.
#[test]
fn devices_are_asked_for_by_their_api() {
    fn story(device: &str) -> [&str; 8] {
        ["generate", "Once", "-n", "2", "--greedy", "--json", "--device", device]
    }
    let devices = json_of(&["devices", "--json"]);
    let count = |api: &str, of: &dyn Fn(&Value) -> bool| {
        devices.as_array().expect("an array").iter().filter(|d| d["backend"] == *api && of(d)).count()
    };
    for api in ["vulkan", "metal", "dx12"] {
        match (count(api, &|d| d["score"] != 0), count(api, &|_| true)) {
            (1.., _) => assert_eq!(json_of(&story(api))["device"]["backend"], api),
            (0, 0) => fails(&story(api), 4, &[api, "reaches no GPU"]),
            (0, _) => fails(&story(api), 4, &["used only when named", &format!("{api}:")]),
        }
        fails(&story(&format!("{api}:no such card")), 4, &[api, "no such card"]);
    }
    if devices[0]["backend"] == "vulkan" {
        let name = devices[0]["name"].as_str().expect("a name").to_uppercase();
        let said = json_of(&story(&format!("vulkan:{name}")));
        assert_eq!(
            (&said["device"]["backend"], &said["device"]["name"]),
            (&json!("vulkan"), &devices[0]["name"])
        );
    }
}

#[test]
fn programs_are_written_for_every_compiler() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = |to: &str, more: &[&str]| -> Vec<Vec<u8>> {
        let to = folder.path().join(to).display().to_string();
        let (code, out, err) = run(&[&["verify", "--write-programs", &to], more, CPU].concat());
        assert_eq!(code, 0, "{more:?}: {err}");
        let files: Vec<_> = out.lines().map(|line| fs::read(line).expect("a file that was named")).collect();
        assert_eq!(files.len(), fs::read_dir(&to).expect("the folder").count(), "each file is named once");
        files
    };
    let contains = |text: &[u8], word: &str| String::from_utf8_lossy(text).contains(word);
    let [vulkan, dx12, metal, web] =
        ["vulkan", "dx12", "metal", "web"].map(|target| written(target, &["--target", target]));
    assert!(vulkan.len() > 30 && [&dx12, &metal, &web].iter().all(|files| files.len() == vulkan.len()));
    assert!(vulkan.iter().all(|text| text[..4] == 0x0723_0203_u32.to_le_bytes()), "SPIR-V");
    assert!(dx12.iter().all(|text| contains(text, "[numthreads(")));
    assert!(metal.iter().all(|text| contains(text, "kernel void main_(")));
    // The values of overrides are set, and features that a browser must enable are declared.
    assert!(web.iter().any(|text| contains(text, "override VOCAB: u32 = 512u;")));
    let with = |files: &[Vec<u8>], word: &str| files.iter().filter(|text| contains(text, word)).count();
    assert!(with(&web, "enable subgroups;") > 5);
    assert_eq!(with(&web, "enable subgroups;"), with(&dx12, "WaveGetLaneIndex"));
    let packed = ["-m", DEMO, "--quantize", "q8_0"];
    assert_eq!(
        written("all", &packed).len(),
        4 * written("one", &[&packed[..], &["--target", "web"]].concat()).len()
    );
    let to = folder.path().join("none").display().to_string();
    fails(
        &["verify", "--write-programs", &to, "--target", "cuda", "--device", "cpu"],
        2,
        &["cuda", "vulkan"],
    );
    fails(&["verify", "--target", "web", "--device", "cpu"], 2, &["--write-programs"]);
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
fn plan_says_what_a_model_takes() {
    let plan = |more: &[&str]| json_of(&[&["plan", "--json"], more].concat());
    let of = |plan: &Value, key: &str| plan[key].as_u64().unwrap_or_else(|| panic!("{key} in {plan}"));
    let on_cpu = plan(CPU);
    let [weights, cache, activations] =
        ["weights_bytes", "cache_bytes", "activation_bytes"].map(|key| of(&on_cpu, key));
    assert_eq!(of(&on_cpu, "total_bytes"), weights + cache + activations);
    // Keys and values of 4 heads of 8 values in f16, in 5 layers, for each of 512 positions.
    assert_eq!(cache, 2 * 4 * 8 * 2 * 5 * 512);
    for larger in [["--math", "f32"], ["--cache-type", "f32"]] {
        assert_eq!(of(&plan(&[CPU, &larger].concat()), "cache_bytes"), 2 * cache, "{larger:?}");
    }
    assert!((1_040_128..1_100_000).contains(&weights), "{weights}");
    assert_eq!(of(&on_cpu, "max_context"), 512);
    // A layer is qkv, attention, out, up, down. In a prefill, norms, rope and cache writes are separate
    // passes.
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
    // The size that inspect predicts for a folder is that of the file's tensors. Norms are f32 in both.
    let foretold = json_of(&["inspect", "--json", "--model", DEMO, "--quantize", "q8_0"]);
    assert_eq!(foretold["size_bytes"], inspected["size_bytes"]);
    let generate = |model: &[&str]| {
        let args = [&["generate", "Once upon a time", "--greedy", "-n", "40"], CPU, model].concat();
        let (code, out, err) = run(&args);
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(generate(&["--model", output]), generate(&["--model", DEMO, "--quantize", "q8_0"]));
    // Quantise the file again, replacing it.
    let (code, _, err) = run(&["quantize", output, output, "--format", "q4_0"]);
    assert_eq!(code, 0, "{err}");
    generate(&["--model", output]);
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// On each device, every kernel computes as defined.
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
    let sizes =
        Sizes { rows: [8, 8], outputs: 1, sequences: 1, guesses: 0, adapters: 0, context: 8, blocks: 1 };
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
                plans.of(wgpt::workload::Phase::Prefill)
            } else {
                plans.of(wgpt::workload::Phase::Decode)
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
fn the_version_names_the_commit() {
    let (code, out, _) = run(&["--version"]);
    assert!(code == 0 && out.starts_with(concat!("wgpt ", env!("CARGO_PKG_VERSION"))), "{out}");
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
