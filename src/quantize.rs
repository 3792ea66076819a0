//! Writes a model as a GGUF file with quantised matrices.

use crate::{
    error::Result,
    families,
    model::{Model, is_gguf},
    tokenizer::{Settings, Tokenizer, write_gguf},
    weights::{Format, Gguf, LayerTensors, Made, Quantized, Values, Writer},
};
use std::{path::Path, sync::Arc};

/// What was written.
pub struct Written {
    pub quantized: Quantized,
    /// In what the file's tokenizer differs from the model's own, if in anything.
    pub unsaid: Option<String>,
}

/// Converts a Hugging Face folder or a GGUF file to a GGUF file whose matrices have the format `to`; the
/// embedding and the head get a finer one. With `force`, it is written even where the file's tokenizer will
/// differ. `progress` receives the bytes just written and the bytes in all, and returns whether to continue.
///
/// # Errors
/// Of the kind Model where the model cannot be read, or GGUF cannot describe it; of the kind Run where the
/// file cannot be written, or `progress` returns false.
pub fn quantize(
    from: &Path,
    to: Format,
    output: &Path,
    force: bool,
    progress: &dyn Fn(u64, u64) -> bool,
) -> Result<Written> {
    let mut file = Writer::default();
    let written = if is_gguf(from) {
        Written { quantized: packed_anew(&Gguf::open(from)?, to, &mut file)?, unsaid: None }
    } else {
        converted(from, to, force, &mut file)?
    };
    file.count("general.file_type", file_type(to));
    file.count("general.quantization_version", 2);
    file.save(output, progress)?;
    Ok(written)
}

/// Repacks the matrices of a GGUF file. Everything else is copied.
fn packed_anew(gguf: &Gguf, to: Format, file: &mut Writer) -> Result<Quantized> {
    let (_, mut tensors) = families::read_gguf(gguf)?;
    tensors.layers.iter_mut().for_each(LayerTensors::keep_order);
    let quantized = tensors.quantize(to, &gguf.checkpoint);
    // These entries describe the layout and the packing of a file, so the new file has its own.
    let own = ["general.alignment", "general.file_type", "general.quantization_version"];
    let is_own = |key: &str| own.contains(&key) || key.starts_with("split.");
    gguf.entries().filter(|(key, _)| !is_own(key)).for_each(|(key, entry)| file.copy(key, entry));
    let specs = tensors.specs();
    for (spec, made) in specs.iter().zip(tensors.make(&specs, &gguf.checkpoint)?) {
        file.tensor(&spec.name, made);
    }
    if let Some(tensor) = gguf.checkpoint.get(ROPE_FREQS).and_then(|entry| entry.tensor.as_ref()) {
        let mut factors = vec![0.0; tensor.shape.iter().product()];
        tensor.format.unpack(tensor.bytes(), &mut factors);
        file.tensor(ROPE_FREQS, vector(factors));
    }
    Ok(quantized)
}

/// Converts a Hugging Face folder.
fn converted(folder: &Path, to: Format, force: bool, file: &mut Writer) -> Result<Written> {
    let mut model = Model::open_weights(folder)?;
    // First, so that a model that GGUF cannot describe fails before anything else is read.
    let factors = families::write_gguf(&model.architecture, &model.name, file)?;
    let tokenizer = Tokenizer::open(folder, &Settings::read(folder, model.architecture.family)?)?;
    let vocab_size = model.architecture.vocab_size;
    let unsaid = write_gguf(&tokenizer, vocab_size, model.bos, &model.eos, force, file)?;
    if let Some(template) = &model.chat_template {
        file.text("tokenizer.chat_template", template);
    }
    let quantized = model.quantize(to);
    if families::gguf_keeps_order(model.architecture.family) {
        model.tensors.layers.iter_mut().for_each(LayerTensors::keep_order);
    }
    let (names, specs): (Vec<_>, Vec<_>) = families::gguf_names(&model.tensors).into_iter().unzip();
    for (name, made) in names.into_iter().zip(model.tensors.make(&specs, &model.checkpoint)?) {
        file.tensor(name, made);
    }
    if let Some(factors) = factors {
        file.tensor(ROPE_FREQS, vector(factors));
    }
    Ok(Written { quantized, unsaid })
}

/// The tensor that holds the divisor of each rotary pair's frequency.
const ROPE_FREQS: &str = "rope_freqs.weight";

fn vector(values: Vec<f32>) -> Made {
    Made { shape: vec![values.len()], format: Format::F32, contents: Arc::new(Values(values)) }
}

/// llama.cpp's number of a file type with mostly this format. Where a K-quant has several variants it is the
/// small one (`_S`), which has the same format in every layer's matrices.
fn file_type(format: Format) -> u32 {
    match format {
        Format::F32 => 0,
        Format::F16 => 1,
        Format::Q4_0 => 2,
        Format::Q4_1 => 3,
        Format::Q8_0 => 7,
        Format::Q5_0 => 8,
        Format::Q5_1 => 9,
        Format::Q2_K => 10,
        Format::Q3_K => 11,
        Format::Q4_K => 14,
        Format::Q5_K => 16,
        Format::Q6_K => 18,
        Format::IQ4_NL => 25,
        Format::BF16 => 32,
        Format::MXFP4 => 38,
    }
}
