//! What loading takes: weights go up through a fixed ring, and on the CPU stay where they are mapped.

use crate::support::adapter_name;
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const LAYERS: u64 = 6;
const HIDDEN: u64 = 1024;
const INNER: u64 = 4096;
const VOCAB: u64 = 32_000;

/// A LLaMA of some 500 MB, all zero: a file with a hole, so that the disk has little to hold. Its bytes, and those
/// of the rows that are reordered.
fn sparse_model(folder: &Path) -> (u64, u64) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo");
    fs::copy(demo.join("tokenizer.json"), folder.join("tokenizer.json")).expect("a copy");
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": VOCAB, "tie_word_embeddings": true,
        "max_position_embeddings": 512,
    });
    fs::write(folder.join("config.json"), config.to_string()).expect("a file");
    let (mut header, mut end) = (Map::new(), 0);
    let mut tensor = |name: String, shape: &[u64]| {
        let start = end;
        end += 4 * shape.iter().product::<u64>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
        header.insert(name, entry);
    };
    tensor("model.embed_tokens.weight".into(), &[VOCAB, HIDDEN]);
    tensor("model.norm.weight".into(), &[HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", &[HIDDEN][..]),
            ("post_attention_layernorm", &[HIDDEN]),
            ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.k_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.v_proj", &[HIDDEN, HIDDEN]),
            ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            ("mlp.gate_proj", &[INNER, HIDDEN]),
            ("mlp.up_proj", &[INNER, HIDDEN]),
            ("mlp.down_proj", &[HIDDEN, INNER]),
        ] {
            tensor(format!("model.layers.{layer}.{name}.weight"), shape);
        }
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(folder.join("model.safetensors")).expect("a file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("a length");
    file.write_all(header.as_bytes()).expect("a header");
    file.set_len(8 + header.len() as u64 + end).expect("a hole");
    (end, LAYERS * 2 * HIDDEN * HIDDEN * 4)
}

/// The most anonymous memory that a run takes.
fn peak_anonymous_bytes(args: &[&str]) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wgpt"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().expect("a child") {
            break ended;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success(), "{args:?}");
    peak
}

#[test]
fn loading_takes_the_weights_once() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (weights, reordered) = sparse_model(folder.path());
    assert!(weights > 500_000_000);
    let model = folder.path().to_str().expect("UTF-8");
    let run = |device: &str| {
        let args = ["generate", "Once", "--greedy", "-n", "1", "--model", model, "--device", device];
        peak_anonymous_bytes(&args)
    };
    let cpu = run("cpu");
    eprintln!("peak anonymous memory: {} MB of {} MB of weights, on the CPU", cpu / 1_000_000, weights / 1_000_000);
    assert!(cpu < 300_000_000 + reordered, "{cpu} bytes on the CPU");
    // A software device's memory is the host's; a real one's is not, or not anonymous.
    let Some(gpu) = adapter_name() else { return };
    let gpu = run(&gpu);
    eprintln!("peak anonymous memory: {} MB, on the GPU", gpu / 1_000_000);
    assert!(gpu < 300_000_000 + weights, "{gpu} bytes on the GPU");
}
