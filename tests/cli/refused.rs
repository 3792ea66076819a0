//! Requests and files that are refused, with one sentence and the right exit code.

use super::*;

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

/// Each model is refused with exit code 3 and one sentence.
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
    check(&rewritten("generation_config.json", b"[1]"), &["generation_config.json"]);
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

/// GGUF files that are damaged or not supported: one sentence, and exit code 3.
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
    // The model is complete, but a key of its tokenizer is renamed.
    for missing in ["tokenizer.ggml.tokens", "tokenizer.ggml.model"] {
        let at = bytes.windows(missing.len()).position(|w| w == missing.as_bytes()).expect("the key");
        let mut renamed = bytes.clone();
        renamed[at + missing.len() - 1] = b'_';
        let file = folder.path().join("bad.gguf");
        fs::write(&file, renamed).expect("a file");
        fails(&["generate", "a", "--model", file.to_str().expect("UTF-8")], 3, &[missing]);
    }
}

/// Metadata that would change what is computed is refused by name, unless its value changes nothing; unknown
/// keys are named in a warning.
#[test]
fn metadata_that_changes_a_model_is_used_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (good, other) = (folder.path().join("good.gguf"), folder.path().join("other.gguf"));
    let (code, _, err) = run(&["quantize", DEMO, good.to_str().expect("UTF-8"), "--format", "q8_0"]);
    assert_eq!(code, 0, "{err}");
    let bytes = fs::read(&good).expect("a file");
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let generate = |key: &str, kind: u32, value: &[u8]| {
        let mut more = [&text(key)[..], &kind.to_le_bytes(), value].concat();
        // A second entry fills up to the alignment of the tensors.
        let filler = [&text("general.filler")[..], &8_u32.to_le_bytes()].concat();
        let blanks = " ".repeat((64 - (more.len() + filler.len() + 8) % 32) % 32);
        more.extend([filler, text(&blanks)].concat());
        let entries = u64::from_le_bytes(*bytes[16..].first_chunk().expect("a count")) + 2;
        fs::write(&other, [&bytes[..16], &entries.to_le_bytes(), &more, &bytes[24..]].concat())
            .expect("a file");
        run(&["generate", "a", "-n", "1", "--device", "cpu", "--model", other.to_str().expect("UTF-8")])
    };
    let (float, integer, boolean) = (6, 4, 7);
    for (key, kind, changing, neutral) in [
        ("llama.attention.causal", boolean, &[0][..], &[1][..]),
        ("llama.final_logit_softcapping", float, &30_f32.to_le_bytes(), &0_f32.to_le_bytes()),
        ("llama.attention.sliding_window", integer, &128_u32.to_le_bytes(), &0_u32.to_le_bytes()),
    ] {
        let (code, _, err) = generate(key, kind, changing);
        assert!(code == 3 && err.contains(key), "{key}: {code} {err}");
        let (code, _, err) = generate(key, kind, neutral);
        assert!(code == 0 && !err.contains(key), "{key}: {code} {err}");
    }
    let (code, _, err) = generate("llama.a_key_of_nobody", integer, &[0; 4]);
    assert!(code == 0 && err.contains("llama.a_key_of_nobody"), "{code} {err}");
    // Entries that the file has: the sizes that it tells twice must agree, and what has no default must be
    // there.
    let after =
        |key: &str| bytes.windows(key.len()).position(|w| w == key.as_bytes()).expect(key) + key.len();
    for (key, word) in [("llama.attention.value_length", "8"), ("llama.vocab_size", "512")] {
        let mut changed = bytes.clone();
        changed[after(key) + 4] ^= 4;
        fs::write(&other, changed).expect("a file");
        fails(&["generate", "a", "--model", other.to_str().expect("UTF-8")], 3, &[key, word]);
    }
    let mut typed = bytes.clone();
    typed[after("general.type") + 12..][..5].copy_from_slice(b"lora!");
    fs::write(&other, typed).expect("a file");
    fails(&["generate", "a", "--model", other.to_str().expect("UTF-8")], 3, &["general.type", "lora!"]);
    let epsilon = "llama.attention.layer_norm_rms_epsilon";
    let mut renamed = bytes.clone();
    renamed[after(epsilon) - 1] = b'_';
    fs::write(&other, renamed).expect("a file");
    fails(&["generate", "a", "--model", other.to_str().expect("UTF-8")], 3, &[epsilon, "missing"]);
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
    // A tokenizer that GGUF has no name for: it splits text with another expression.
    let odd = model(|folder| {
        let file = folder.join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&file).expect("a tokenizer")).expect("JSON");
        json["model"]["byte_fallback"] = json!(false);
        json["normalizer"] = Value::Null;
        json["decoder"] = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        json["pre_tokenizer"] = json!({"type": "Split", "pattern": {"Regex": "[a-m]+"},
            "behavior": "Isolated", "invert": false});
        fs::write(file, json.to_string()).expect("a file");
    });
    let odd = odd.path().to_str().expect("UTF-8");
    fails(&["quantize", odd, output, "--format", "q8_0", "--force"], 3, &["tokenizer", "at load only"]);
    // A tokenizer of which it cannot say all.
    let odd = model(|folder| {
        let file = folder.join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&file).expect("a tokenizer")).expect("JSON");
        json["added_tokens"][1]["rstrip"] = json!(true);
        fs::write(file, json.to_string()).expect("a file");
    });
    let odd = odd.path().to_str().expect("UTF-8");
    let words = ["take the blanks beside them, such as <s>", "generate --quantize", "--force"];
    fails(&["quantize", odd, output, "--format", "q8_0"], 3, &words);
    let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
    assert!(left.is_empty(), "{left:?}");
    let (code, _, err) = run(&["quantize", odd, output, "--format", "q8_0", "--force"]);
    assert!(code == 0 && Path::new(output).exists(), "{err}");
    assert!(err.lines().any(|line| line.starts_with("warning:") && line.contains(words[0])), "{err}");
}

/// Weights that are NaN give an error on every device, not a text.
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

/// Tensors that no part of the model uses are named, and the model does not run without them.
#[test]
fn tensors_of_no_part_of_the_model_are_refused() {
    let fewer = configured(json!({"num_hidden_layers": 4}));
    let folder = fewer.path().to_str().expect("UTF-8");
    fails(&["generate", "a", "--model", folder], 3, &["model.layers.4.mlp.up_proj.weight", "unexpected"]);
    let layer = "model.layers.0";
    for name in ["self_attn.q_norm.weight", "mlp.experts.0.up_proj.weight"] {
        let name = format!("{layer}.{name}");
        let more = model(|folder| {
            let bytes = fs::read(folder.join("model.safetensors")).expect("weights");
            let mut tensors: Vec<_> =
                safetensors::SafeTensors::deserialize(&bytes).expect("weights").tensors();
            let zeros = [0; 8];
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &zeros);
            tensors.push((name.clone(), view.expect("a view")));
            let all = safetensors::serialize(tensors, None).expect("weights");
            fs::write(folder.join("model.safetensors"), all).expect("a file");
        });
        let folder = more.path().to_str().expect("UTF-8");
        fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, &[&name, "unexpected"]);
    }
}

/// Fields that would change what is computed are refused by name, unless their values change nothing; unknown
/// ones are named in a warning.
#[test]
fn fields_that_change_a_model_are_used_or_refused() {
    let generate = |fields: Value| {
        let folder = configured(fields);
        run(&[
            "generate",
            "a",
            "-n",
            "1",
            "--device",
            "cpu",
            "--model",
            folder.path().to_str().expect("UTF-8"),
        ])
    };
    for (field, changing, neutral) in [
        ("architectures", json!(["LlamaForSequenceClassification"]), json!(["LlamaForCausalLM"])),
        ("architectures", json!("LlamaForSequenceClassification"), json!("LlamaForCausalLM")),
        ("final_logit_softcapping", json!(30.0), json!(null)),
        ("no_rope_layers", json!([1, 1, 1, 0, 1]), json!([1, 1, 1, 1, 1])),
        ("layer_types", json!(["full_attention", "sliding_attention"]), json!(["full_attention"])),
        ("quantization_config", json!({"quant_method": "gptq"}), json!({})),
    ] {
        let (code, _, err) = generate(json!({ field: changing }));
        assert!(code == 3 && err.contains(field), "{field}: {code} {err}");
        let (code, _, err) = generate(json!({ field: neutral }));
        assert!(code == 0 && !err.contains(field), "{field}: {code} {err}");
    }
    let (code, _, err) = generate(json!({"a_field_of_nobody": 1, "attention_dropout": 0.1, "_secret": 2}));
    let (named, others) =
        (err.contains("a_field_of_nobody"), err.contains("dropout") || err.contains("_secret"));
    assert!(code == 0 && named && !others, "{code} {err}");
}

/// What lies in a file's place is named for what it is.
#[test]
fn stand_ins_for_files_are_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n";
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        for (content, word) in [
            (pointer, "git lfs pull"),
            ("<!DOCTYPE html><p>", "web page"),
            ("", "empty"),
            ("Entry not found", "what a server says"),
        ] {
            let folder = model(|folder| fs::write(folder.join(name), content).expect("a file"));
            let folder = folder.path().to_str().expect("UTF-8");
            fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, &[name, word]);
        }
    }
    let marked = model(|folder| {
        fs::write(folder.join("generation_config.json"), "{}").expect("a file");
        fs::write(folder.join("tokenizer_config.json"), "{}").expect("a file");
        let names = ["config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"];
        for file in names.map(|name| folder.join(name)) {
            let text = fs::read_to_string(&file).expect("a text");
            fs::write(file, format!("\u{feff}{text}")).expect("a file");
        }
    });
    let folder = marked.path().to_str().expect("UTF-8");
    let (code, _, err) = run(&["generate", "a", "-n", "1", "--device", "cpu", "--model", folder]);
    assert_eq!(code, 0, "files with a byte order mark: {err}");
    let alone = model(|folder| {
        let path = folder.join("model.safetensors");
        fs::rename(&path, folder.join("model-00002-of-00003.safetensors")).expect("a file");
    });
    let folder = alone.path().to_str().expect("UTF-8");
    let words = ["model-00001-of-00003.safetensors", "download it too"];
    fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, &words);
    let partial = model(|folder| {
        let path = folder.join("model.safetensors");
        fs::rename(&path, folder.join("model.safetensors.incomplete")).expect("a file");
    });
    let folder = partial.path().to_str().expect("UTF-8");
    fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, &["incomplete", "broken off"]);
}

/// The library of tokenizers panics where a normalizer leaves nothing of an added token: an error, like any.
#[test]
fn texts_that_cannot_be_tokenized_are_refused() {
    let odd = model(|folder| {
        let file = folder.join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&file).expect("a tokenizer")).expect("JSON");
        json["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
        let blanks = json!({"id": 512, "content": "  ", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": true, "special": false});
        json["added_tokens"].as_array_mut().expect("a list").push(blanks);
        fs::write(file, json.to_string()).expect("a file");
    });
    let folder = odd.path().to_str().expect("UTF-8");
    let (code, out, err) = run(&["generate", "Émile", "--device", "cpu", "--model", folder]);
    assert_eq!((code, &*out, err.lines().filter(|line| line.contains("error")).count()), (2, "", 1), "{err}");
    for words in ["tokenizer.json cannot turn this text into tokens", "rare characters"] {
        assert!(err.contains(words), "{err}");
    }
}

/// Python's numbers in config.json are read, and advice that makes no sense is passed over with a warning.
#[test]
fn odd_numbers_spoil_nothing_else() {
    let odd = model(|folder| {
        let config = fs::read_to_string(folder.join("config.json")).expect("config.json");
        let config = config.replacen('{', "{\"initializer_range\": Infinity, ", 1);
        fs::write(folder.join("config.json"), config).expect("a file");
        let advice = r#"{"do_sample": true, "temperature": -3, "top_p": NaN, "top_k": "all"}"#;
        fs::write(folder.join("generation_config.json"), advice).expect("a file");
    });
    let folder = odd.path().to_str().expect("UTF-8");
    let (code, _, err) = run(&["generate", "a", "-n", "1", "--device", "cpu", "--model", folder]);
    let named = ["temperature is -3", "top_p is \"NaN\"", "top_k"].iter().all(|word| err.contains(word));
    assert!(code == 0 && named, "{code} {err}");
    let comment = model(|folder| {
        let config = fs::read_to_string(folder.join("config.json")).expect("config.json");
        fs::write(folder.join("config.json"), format!("// a comment\n{config}")).expect("a file");
    });
    let folder = comment.path().to_str().expect("UTF-8");
    fails(&["generate", "a", "--device", "cpu", "--model", folder], 3, &["config.json", "comments"]);
}

/// A tied matrix may be stored as the head alone, also under a note of shared tensors, and of a tensor in two
/// shards the one that the index names counts.
#[test]
fn weights_are_found_where_they_lie() {
    let greedy = |folder: &TempDir| {
        let folder = folder.path().to_str().expect("UTF-8");
        let result = json_of(&[
            "generate", "Once", "--greedy", "--json", "-n", "6", "--device", "cpu", "--model", folder,
        ]);
        result["tokens"].clone()
    };
    let expected = greedy(&model(|_| ()));
    let embedding = "model.embed_tokens.weight";
    type Tensors<'a> = Vec<(String, safetensors::tensor::TensorView<'a>)>;
    let rewritten = |change: &dyn Fn(&Path, Tensors)| {
        model(|folder| {
            let bytes = fs::read(folder.join("model.safetensors")).expect("weights");
            let all = safetensors::SafeTensors::deserialize(&bytes).expect("weights");
            change(folder, all.tensors());
        })
    };
    for note in [None, Some([(embedding.to_owned(), "lm_head.weight".to_owned())].into())] {
        let head_alone = rewritten(&|folder, mut tensors| {
            tensors.retain(|(name, _)| name != "lm_head.weight");
            for (name, _) in &mut tensors {
                if name == embedding {
                    *name = "lm_head.weight".to_owned();
                }
            }
            let all = safetensors::serialize(tensors, note.clone()).expect("weights");
            fs::write(folder.join("model.safetensors"), all).expect("a file");
        });
        assert_eq!(greedy(&head_alone), expected);
    }
    let shards = rewritten(&|folder, tensors| {
        let files = ["model-1.safetensors", "model-2.safetensors"];
        let map: serde_json::Map<_, _> = tensors.iter().map(|(n, _)| (n.clone(), json!(files[1]))).collect();
        let (_, stale) = tensors.iter().find(|(name, _)| name == embedding).expect("the embedding");
        let zeros = vec![0; stale.data().len()];
        let zeros = safetensors::tensor::TensorView::new(stale.dtype(), stale.shape().to_vec(), &zeros);
        let first = safetensors::serialize([(embedding, zeros.expect("a view"))], None).expect("weights");
        fs::write(folder.join(files[0]), first).expect("a file");
        fs::write(folder.join(files[1]), safetensors::serialize(tensors, None).expect("weights"))
            .expect("a file");
        let mut map = map;
        map.insert("a tensor of the first".to_owned(), json!(files[0]));
        let index = json!({"metadata": {}, "weight_map": map}).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).expect("a file");
        fs::remove_file(folder.join("model.safetensors")).expect("a file");
    });
    assert_eq!(greedy(&shards), expected);
}
