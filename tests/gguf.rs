//! GGUF: formats compared with the `gguf` package, programs for every format, and damaged headers.

use crate::{
    models::engine,
    passes,
    support::{Fixture, On, path},
};
use safetensors::SafeTensors;
use std::sync::Arc;
use wgpt::{
    buffers::Contents,
    engine::EngineOptions,
    families,
    model::Model,
    quantize::quantize,
    sampling::Sampling,
    tokenizer::Tokenizer,
    weights::{Bytes, Entry, Format, Gguf, Made, Order, StoredRows, Tensor, Values, Writer},
};

pub fn blocks() -> impl Iterator<Item = Format> {
    Format::ALL.into_iter().filter(|format| format.is_blocks())
}

/// Unpacked values equal those of the `gguf` package, bit for bit.
#[test]
fn formats_mean_what_the_gguf_package_says() {
    let bytes = std::fs::read(path("fixtures/formats.safetensors")).expect("the fixture");
    let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
    for format in blocks() {
        let tensor = |what: &str| expected.tensor(&format!("{}.{what}", format.name())).expect("a tensor");
        let packed = tensor("packed");
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(tensor("values").data());
        assert_eq!(packed.shape()[1], format.block_bytes(), "{format:?}");
        assert_eq!(format.row_bytes(values.len()), packed.data().len(), "{format:?}");
        let mut got = vec![0.0f32; values.len()];
        format.unpack(packed.data(), &mut got);
        for (i, (got, value)) in got.iter().zip(&values).enumerate() {
            assert_eq!(got.to_bits(), value.to_bits(), "{format:?}, value {i}: {got} for {value}");
        }
    }
}

/// Packed bytes equal those of the `gguf` package, where it can pack a format.
#[test]
fn formats_are_packed_as_the_gguf_package_packs_them() {
    let bytes = std::fs::read(path("fixtures/formats.safetensors")).expect("the fixture");
    let expected = SafeTensors::deserialize(&bytes).expect("safetensors");
    let source: Vec<f32> = bytemuck::pod_collect_to_vec(expected.tensor("source").expect("values").data());
    let mut compared = 0;
    for format in Format::ALL {
        let Ok(tensor) = expected.tensor(&format!("{}.source", format.name())) else { continue };
        let mut packed = vec![0xff; format.row_bytes(source.len())];
        format.pack(&source, &mut packed);
        let block = format.row_bytes(32);
        for (i, (got, wanted)) in packed.chunks(block).zip(tensor.data().chunks(block)).enumerate() {
            assert_eq!(got, wanted, "{format:?}, block {i}: {:?}", &source[i * 32..][..32]);
        }
        compared += 1;
    }
    assert_eq!(compared, 8);
}

/// Packing and unpacking loses no more than the format's precision allows. Zeros, infinities and NaN cause no
/// panic.
#[test]
fn what_is_packed_comes_back() {
    // The values are random: symmetric or one-sided, small or large.
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state) / f64::from(u32::MAX)
    };
    let mut values: Vec<f32> =
        (0..4096).map(|_| ((random() + random() + random() - 1.5) * 0.1) as f32).collect();
    values[1024..1536].iter_mut().for_each(|v| *v = v.abs() + 0.05);
    values[1536..2048].iter_mut().for_each(|v| *v *= 1000.0);
    values[2048..2304].fill(0.0);
    values[2304..2560].fill(-0.125);
    for (format, most) in Format::ALL
        .into_iter()
        .zip([0.0, 3e-4, 3e-3, 6e-3, 0.09, 0.085, 0.045, 0.041, 0.3, 0.17, 0.085, 0.04, 0.018, 0.09, 0.13])
    {
        let mut packed = vec![0xff; format.row_bytes(values.len())];
        format.pack(&values, &mut packed);
        let mut back = vec![0.0; values.len()];
        format.unpack(&packed, &mut back);
        for (part, (values, back)) in values.chunks(256).zip(back.chunks(256)).enumerate() {
            let sum = |of: &dyn Fn(f32, f32) -> f32| -> f32 {
                values.iter().zip(back).map(|(v, b)| of(*v, *b)).sum()
            };
            let (error, all) = (sum(&|v, b| (v - b) * (v - b)), sum(&|v, _| v * v));
            assert!(
                error.sqrt() <= most * all.sqrt(),
                "{format:?}, part {part}: {} of it",
                (error / all).sqrt()
            );
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e30] {
            let mut odd_values = values[..256].to_vec();
            odd_values[7] = odd;
            format.pack(&odd_values, &mut packed);
            odd_values.fill(odd);
            format.pack(&odd_values, &mut packed);
        }
    }
}

/// A GGUF file with a LLaMA of one layer. Its matrices take the formats in turn.
pub fn llama(formats: &[Format]) -> Vec<u8> {
    let mut next = formats.iter().cycle().copied();
    let (width, kv, inner, vocab) = (256, 128, 512, 61);
    let mut file = Writer::default();
    file.text("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 64),
        ("embedding_length", width),
        ("block_count", 1),
        ("feed_forward_length", inner),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        file.count(&format!("llama.{key}"), value as u32);
    }
    file.number("llama.attention.layer_norm_rms_epsilon", 1e-5);
    for (name, rows, columns) in [
        ("token_embd", vocab, width),
        ("blk.0.attn_q", width, width),
        ("blk.0.attn_k", kv, width),
        ("blk.0.attn_v", kv, width),
        ("blk.0.attn_output", width, width),
        ("blk.0.ffn_gate", inner, width),
        ("blk.0.ffn_up", inner, width),
        ("blk.0.ffn_down", width, inner),
    ] {
        let format = next.next().expect("a format");
        let tensor = Tensor::random(name, format, rows, columns, name.len() as u64);
        let contents = Arc::new(StoredRows::new(tensor, format, false, Order::AsStored));
        file.tensor(format!("{name}.weight"), Made { shape: vec![rows, columns], format, contents });
    }
    for name in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        let contents = Arc::new(Values((0..width).map(|i| 1.0 + (i % 7) as f32 / 30.0).collect()));
        file.tensor(format!("{name}.weight"), Made { shape: vec![width], format: Format::F32, contents });
    }
    bytes(&file)
}

pub fn fixture(name: String, file: Vec<u8>) -> Fixture {
    let gguf = Gguf::read(&name, Bytes::new(file)).expect("a GGUF file");
    let model = Model::from_gguf(name.clone(), &gguf).expect("a model");
    Fixture {
        name,
        model,
        tokens: (0..17).map(|i| i * 7 % 61).collect(),
        logits: Vec::new(),
        greedy: Vec::new(),
    }
}

/// A model for each block format, with all matrices in it, and models that mix formats.
fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<_> = blocks().map(|f| fixture(format!("{f:?}"), llama(&[f]))).collect();
    all.push(fixture("Q4_K and Q6_K".into(), llama(&[Format::Q6_K, Format::Q4_K, Format::Q4_K])));
    all.push(fixture(
        "Q8_0, Q5_1 and F16".into(),
        llama(&[Format::Q8_0, Format::Q5_1, Format::Q8_0, Format::MXFP4]),
    ));
    all
}

#[test]
fn every_format_computes_as_its_definition() {
    for on in [On::Cpu, On::Gpu, On::WebGpu] {
        for fixture in fixtures() {
            let Some(device) = on.open() else { break };
            passes::check(&fixture, on, device, |_| ());
        }
    }
}

/// Weights take at most 5 % more bytes on the GPU than in the file.
#[test]
fn weights_stay_packed_on_the_gpu() {
    use wgpt::{buffers::Content, capabilities::Capabilities, engine::plans};
    for fixture in fixtures() {
        let plans = plans(&fixture.model, &Capabilities::webgpu(), passes::SIZES).expect("plans");
        let loaded = plans.buffers.all().filter(|b| {
            matches!(plans.buffers.content(*b), Content::Loaded(_)) && plans.buffers.label(*b) != "rope_table"
        });
        let bytes: u64 = loaded.map(|b| plans.buffers.bytes(b, &plans.sizes)).sum();
        // Rows are padded to 128 columns and to 16 bytes, which is much for rows as short as these.
        let padded = |entry: &Entry| match entry.shape[..] {
            [_, columns] => entry.bytes as f64 * columns.next_multiple_of(128) as f64 / columns as f64,
            _ => entry.bytes as f64,
        };
        let stored: f64 = fixture.model.checkpoint.entries().map(|(_, entry)| padded(entry)).sum();
        assert!(bytes as f64 <= stored * 1.15, "{}: {bytes} bytes for {stored}", fixture.name);
    }
}

/// A header that is cut off anywhere, or has any byte changed, gives an error or a model, but never a panic
/// or a huge allocation.
#[test]
fn headers_that_lie_are_refused() {
    let file = llama(&[Format::Q4_0]);
    let header = file.len().min(2000);
    let read = |file: Vec<u8>| {
        let gguf = Gguf::read("file", Bytes::new(file))?;
        families::read_gguf(&gguf).map(|_| ())
    };
    read(file.clone()).expect("the file itself is good");
    for end in (0..header).chain([file.len() - 1]) {
        assert!(read(file[..end].to_vec()).is_err(), "cut at {end}");
    }
    let short = &file[..file.len().min(header + 4000)];
    for at in 0..header {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = short.to_vec();
            changed[at] = value;
            let _ = read(changed);
        }
    }
    for (what, start) in [("big-endian", [0, 0, 0, 3]), ("version", [1, 0, 0, 0]), ("version", [9, 0, 0, 0])]
    {
        let mut changed = file.clone();
        changed[4..8].copy_from_slice(&start);
        let error = read(changed).expect_err("another version").to_string();
        assert!(error.contains(what), "{error}");
    }
}

/// Distributes a model's tensors over `count` files, as gguf-split does. The first file has the metadata.
pub fn split(gguf: &Gguf, count: u16) -> Vec<Vec<u8>> {
    let mut parts: Vec<Writer> = (0..count).map(|_| Writer::default()).collect();
    gguf.entries().for_each(|(key, entry)| parts[0].copy(key, entry));
    let u16_entry = |value: u16| [&2u32.to_le_bytes()[..], &value.to_le_bytes()].concat();
    for (number, part) in (0..).zip(&mut parts) {
        part.copy("split.no", &u16_entry(number));
        part.copy("split.count", &u16_entry(count));
        part.count("split.tensors.count", gguf.checkpoint.len() as u32);
    }
    for (at, (name, entry)) in gguf.checkpoint.entries().enumerate() {
        parts[at % usize::from(count)].tensor(name, made(entry));
    }
    parts.iter().map(bytes).collect()
}

/// The tensor of a file, to be written again unchanged.
fn made(entry: &Entry) -> Made {
    let tensor = entry.tensor.clone().expect("a tensor that is read");
    let (format, shape) = (tensor.format, tensor.shape.clone());
    let contents: Arc<dyn Contents> = match shape.len() {
        2 => Arc::new(StoredRows::new(tensor, format, false, Order::AsStored)),
        _ => {
            let mut values = vec![0.0; shape.iter().product()];
            format.unpack(tensor.bytes(), &mut values);
            Arc::new(Values(values))
        }
    };
    Made { shape, format, contents }
}

fn bytes(file: &Writer) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.write(&mut bytes, &|_, _| true).expect("writing to memory");
    bytes
}

/// Any part opens the whole model. An error names a part that is missing or replaced by another.
#[test]
fn parts_of_a_split_model_are_one() {
    let whole = Gguf::read("whole", Bytes::new(llama(&[Format::Q4_0, Format::F16]))).expect("a GGUF file");
    let folder = tempfile::tempdir().expect("a folder");
    let at = |number: usize| folder.path().join(format!("tiny-{number:05}-of-00003.gguf"));
    for (number, part) in (1..).zip(split(&whole, 3)) {
        std::fs::write(at(number), part).expect("a file");
    }
    for number in 1..=3 {
        let joined = Gguf::open(&at(number)).expect("a split model");
        let tensor = |gguf: &Gguf, name: &str| {
            let tensor = gguf.checkpoint.get(name).and_then(|entry| entry.tensor.clone()).expect("a tensor");
            (tensor.format, tensor.shape.clone(), tensor.bytes().to_vec())
        };
        assert_eq!(joined.checkpoint.len(), whole.checkpoint.len());
        for (name, _) in whole.checkpoint.entries() {
            assert_eq!(tensor(&joined, name), tensor(&whole, name), "{name}");
        }
        let model = Model::open_weights(&at(number)).expect("a model");
        assert_eq!(model.name, "tiny");
        // Quantised again, it is a single file.
        let output = folder.path().join("one.gguf");
        quantize(&at(number), Format::Q8_0, &output, false, &|_, _| true).expect("a GGUF file");
        let one = Gguf::open(&output).expect("one file");
        assert!(one.checkpoint.len() == whole.checkpoint.len() && one.get("split.count").is_none());
    }
    let refused = |what: &[&str]| {
        let error = Gguf::open(&at(1)).err().expect("not a whole model").to_string();
        assert!(what.iter().all(|what| error.contains(what)), "{error}");
    };
    let third = std::fs::read(at(3)).expect("a part");
    std::fs::remove_file(at(3)).expect("a part");
    refused(&["00003-of-00003.gguf cannot be opened", "beside each other"]);
    std::fs::copy(at(2), at(3)).expect("a part");
    refused(&["00003-of-00003.gguf is not what its name says, part 3 of 3"]);
    std::fs::write(at(3), third).expect("a part");
    let odd = folder.path().join("odd.gguf");
    std::fs::rename(at(1), &odd).expect("a part");
    let error = Gguf::open(&odd).err().expect("which part is unknown").to_string();
    assert!(error.contains("one of 3 parts"), "{error}");
}

/// The file of `llama` with other shapes, and with further tensors.
pub fn changed(shape: impl Fn(Vec<usize>) -> Vec<usize>, more: Vec<(String, Made)>) -> Vec<u8> {
    let whole = Gguf::read("whole", Bytes::new(llama(&[Format::Q8_0]))).expect("a GGUF file");
    let mut file = Writer::default();
    whole.entries().for_each(|(key, entry)| file.copy(key, entry));
    for (name, entry) in whole.checkpoint.entries() {
        let made = made(entry);
        file.tensor(name, Made { shape: shape(made.shape), ..made });
    }
    more.into_iter().for_each(|(name, made)| file.tensor(name, made));
    bytes(&file)
}

/// What the model in a file says of a text.
pub fn logprobs(file: Vec<u8>) -> Vec<f64> {
    let fixture = fixture("file".to_owned(), file);
    let options = EngineOptions { scores: true, ..EngineOptions::default() };
    let mut engine = engine(&fixture.model, On::Cpu, options).expect("the CPU");
    engine.logprobs(&fixture.tokens, 1).expect("tokens that fit")
}

/// A vector that is stored as one row, or one column, is that vector, and further dimensions of 1 say
/// nothing.
#[test]
fn tensors_may_have_more_dimensions() {
    let with = |shape: fn(Vec<usize>) -> Vec<usize>| logprobs(changed(shape, Vec::new()));
    let expected = with(|shape| shape);
    for shape in [
        |shape: Vec<usize>| if shape.len() == 1 { vec![1, shape[0]] } else { shape },
        |shape: Vec<usize>| if shape.len() == 1 { vec![shape[0], 1] } else { shape },
        |shape: Vec<usize>| [&[1][..], &shape].concat(),
        |shape: Vec<usize>| [&[1; 3][..], &shape].concat()[shape.len() - 1..].to_vec(),
    ] {
        assert_eq!(with(shape), expected);
    }
}

/// Files that fuzzing found (tests/fuzz) give a model or an error, never a panic.
#[test]
fn the_fuzzers_files_do_no_harm() {
    let (mut models, mut refused) = (0, 0);
    for entry in std::fs::read_dir(path("fuzz/corpus/gguf")).expect("the corpus") {
        let bytes = std::fs::read(entry.expect("a file").path()).expect("a file");
        let Ok(gguf) = Gguf::read("file", Bytes::new(bytes)) else {
            refused += 1;
            continue;
        };
        let _ = Tokenizer::from_gguf(&gguf).map(|tokenizer| tokenizer.encode("Once, 12 naïve\n 🦙", true));
        models += usize::from(Model::from_gguf("file".to_owned(), &gguf).is_ok());
    }
    assert!(models >= 5 && refused >= 5, "{models} models, {refused} refused");
}

/// Files in the wild differ from llama.cpp's own: they give a size as a list with one equal number per layer,
/// a scaling factor of 0 for none, or an epsilon of 0.
#[test]
fn odd_words_for_usual_things_are_read() {
    let whole = Gguf::read("whole", Bytes::new(llama(&[Format::F16]))).expect("a GGUF file");
    let read = |key: &str, write: &dyn Fn(&mut Writer)| {
        let mut file = Writer::default();
        whole.entries().filter(|(other, _)| *other != key).for_each(|(key, entry)| file.copy(key, entry));
        whole.checkpoint.entries().for_each(|(name, entry)| file.tensor(name, made(entry)));
        write(&mut file);
        let file = Gguf::read("file", Bytes::new(bytes(&file))).expect("a GGUF file");
        families::read_gguf(&file).map(|(architecture, _)| architecture)
    };
    let (usual, _) = families::read_gguf(&whole).expect("an architecture");
    let (heads, factor) = ("llama.attention.head_count_kv", "llama.rope.scaling.factor");
    assert_eq!(read(heads, &|file| file.counts(heads, &[2, 2])).expect("alike"), usual);
    assert!(
        read(heads, &|file| file.counts(heads, &[2, 1]))
            .expect_err("not alike")
            .to_string()
            .contains("alike")
    );
    assert_eq!(read(factor, &|file| file.number(factor, 0.0)).expect("none"), usual);
    let epsilon = "llama.attention.layer_norm_rms_epsilon";
    assert_eq!(
        read(epsilon, &|file| file.number(epsilon, 0.0))
            .expect("zero")
            .norms()
            .next()
            .map(|norm| norm.epsilon),
        Some(0.0)
    );
}

/// Files of the gguf package, arranged as llama.cpp's converter arranges them
/// (tests/fixtures/gguf_families.py), give what transformers computes from the same checkpoints.
#[test]
fn families_are_as_transformers_has_them() {
    for name in ["qwen2", "qwen3", "smollm3"] {
        let fixture = Fixture::open(name);
        let file = Gguf::open(&path("fixtures/gguf").join(format!("{name}.gguf"))).expect("a GGUF file");
        let model = Model::from_gguf(name.to_owned(), &file).expect("a model");
        assert_eq!(model.architecture.layers, fixture.model.architecture.layers, "{name}");
        for on in On::ALL {
            let options = EngineOptions { scores: true, ..EngineOptions::default() };
            let Some(mut engine) = engine(&model, on, options) else { continue };
            let got = engine.logprobs(&fixture.tokens, 1).expect("tokens that fit");
            for (got, expected) in got.iter().zip(fixture.logprobs()) {
                assert!((got - expected).abs() < 1e-3, "{name} on {on:?}: {got} for {expected}");
            }
            let generation = engine.generate(&fixture.tokens, Sampling::GREEDY, fixture.greedy.len());
            let greedy: Vec<_> =
                generation.expect("a prompt that fits").map(|id| id.expect("an id")).collect();
            assert_eq!(greedy, fixture.greedy, "{name} on {on:?}");
        }
    }
}
