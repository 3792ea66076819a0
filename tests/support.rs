//! Shared by all tests: devices and fixtures.

use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};
use wgpt::{
    backend::{Device, DeviceChoice, GpuOptions, adapters},
    model::Model,
};

/// The kinds of device that tests run on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum On {
    Cpu,
    /// With the program's own options.
    Gpu,
    /// With bounds checks in shaders.
    Checked,
    /// With WebGPU's default limits and no features.
    WebGpu,
}

impl On {
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Gpu, Self::Checked, Self::WebGpu];

    /// Opens the device. Prints a note and returns none on a machine without a GPU, real or software.
    /// `tests/run` sets WGPT_TEST_GPU where there is one: then it is a failure not to find it.
    pub fn open(self) -> Option<Device> {
        let choice = match self {
            Self::Cpu => DeviceChoice::Cpu,
            _ => gpu()?,
        };
        let options = GpuOptions {
            checked: self == Self::Checked,
            webgpu_defaults: self == Self::WebGpu,
            software_matrices: true,
            ..GpuOptions::default()
        };
        Some(Device::open(&choice, false, Some(2), options).expect("the device opens"))
    }
}

/// The first adapter, real or software.
fn gpu() -> Option<DeviceChoice> {
    adapter_name().map(|name| DeviceChoice::from(&*name))
}

/// The number of the first adapter, as `--device` takes it.
pub fn adapter_name() -> Option<String> {
    let there_are = adapters(&DeviceChoice::Auto).expect("auto always chooses");
    let found = there_are.iter().find(|a| a.backend != "cpu").map(|a| a.index.to_string());
    if found.is_none() {
        assert!(std::env::var_os("WGPT_TEST_GPU").is_none(), "WGPT_TEST_GPU is set, but no GPU was found");
        eprintln!("skipped: no GPU, not even a software one");
    }
    found
}

/// A path under tests/.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A checkpoint of tests/fixtures/models, with transformers' results for it.
pub struct Fixture {
    pub name: String,
    pub model: Model,
    pub tokens: Vec<u32>,
    /// `[tokens, vocab]`.
    pub logits: Vec<Vec<f32>>,
    /// The greedy continuation of the tokens.
    pub greedy: Vec<u32>,
}

impl Fixture {
    pub fn open(name: &str) -> Self {
        let folder = path("fixtures/models").join(name);
        let model = Model::open_weights(&folder).unwrap_or_else(|e| panic!("{name}: {e}"));
        let bytes = fs::read(folder.join("expected.safetensors")).expect("expected.safetensors");
        let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
        let ids = |name| bytemuck::pod_collect_to_vec(expected.tensor(name).expect(name).data());
        let logits: Vec<f32> =
            bytemuck::pod_collect_to_vec(expected.tensor("logits").expect("logits").data());
        let vocab = model.architecture.vocab_size as usize;
        Self {
            name: name.to_owned(),
            tokens: ids("tokens"),
            logits: logits.chunks(vocab).map(<[f32]>::to_vec).collect(),
            greedy: ids("greedy"),
            model,
        }
    }

    pub fn all() -> Vec<Self> {
        let folder = fs::read_dir(path("fixtures/models")).expect("the fixtures");
        let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert!(names.len() >= 30, "all fixtures are there");
        names.iter().map(|name| Self::open(name)).collect()
    }

    /// The log-probability, in nats, that transformers gives to each token after the first.
    pub fn logprobs(&self) -> Vec<f64> {
        logprobs(self.logits.iter().map(Vec::as_slice), &self.tokens)
    }
}

/// The log-probability, in nats, of each token after the first, by the logits after each, `[vocab]`.
pub fn logprobs<'l>(logits: impl Iterator<Item = &'l [f32]>, tokens: &[u32]) -> Vec<f64> {
    let logprob = |(logits, id): (&[f32], &u32)| {
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        f64::from(logits[*id as usize]) - total.ln()
    };
    logits.zip(&tokens[1..]).map(logprob).collect()
}

/// A path in ../shared, which holds larger models and may be absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if !path.exists() {
        eprintln!("skipped: ../shared/{name} is not there");
    }
    path.exists().then_some(path)
}

/// A LLaMA of any size whose weights are all zero. Its file is sparse, so it takes little disk space.
pub struct Llama {
    pub layers: u64,
    pub hidden: u64,
    pub inner: u64,
    pub vocab: u64,
}

impl Llama {
    /// Writes the model's folder, with the built-in model's tokenizer. Returns the size of the weights in
    /// bytes.
    pub fn write(&self, folder: &Path) -> u64 {
        let Self { layers, hidden, inner, vocab } = *self;
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo");
        fs::copy(demo.join("tokenizer.json"), folder.join("tokenizer.json")).expect("a copy");
        let config = json!({
            "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
            "num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 4,
            "vocab_size": vocab, "tie_word_embeddings": true, "max_position_embeddings": 100_000,
        });
        fs::write(folder.join("config.json"), config.to_string()).expect("a file");
        let (mut header, mut end) = (Map::new(), 0);
        let mut tensor = |name: String, shape: &[u64]| {
            let start = end;
            end += 4 * shape.iter().product::<u64>();
            header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}));
        };
        tensor("model.embed_tokens.weight".into(), &[vocab, hidden]);
        tensor("model.norm.weight".into(), &[hidden]);
        for layer in 0..layers {
            for (name, shape) in [
                ("input_layernorm", &[hidden][..]),
                ("post_attention_layernorm", &[hidden]),
                ("self_attn.q_proj", &[hidden, hidden]),
                ("self_attn.k_proj", &[hidden, hidden]),
                ("self_attn.v_proj", &[hidden, hidden]),
                ("self_attn.o_proj", &[hidden, hidden]),
                ("mlp.gate_proj", &[inner, hidden]),
                ("mlp.up_proj", &[inner, hidden]),
                ("mlp.down_proj", &[hidden, inner]),
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
        end
    }
}
