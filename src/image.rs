//! Image files → the pixels that a CLIP vision tower takes, as transformers' CLIPImageProcessor computes
//! them.
//!
//! Resizing gives the same bits as Pillow's `Image.resize`, since towers were trained on Pillow's pixels; no
//! crate does this. The horizontal pass runs before the vertical one, as in Pillow up to 12.1 and in
//! torchvision. Where an image loses more than twice as many rows as columns, Pillow 13 runs the vertical
//! pass first, which changes a colour by about one level.

use crate::{
    config::Config,
    error::{Error, Result},
    files::read_json,
};
use ::image::{ColorType, DynamicImage, ImageDecoder, ImageError, ImageReader, Limits, RgbImage, RgbaImage};
use serde_json::Value;
use std::{
    fmt,
    io::{BufRead, Cursor, Seek},
    path::Path,
};

/// The longest side of an image that a configuration may ask for, in pixels.
const MAX_SIDE: u32 = 4096;

/// Pillow computes in fixed point: weights and sums have this many fractional bits.
const PRECISION: u32 = 22;

/// A resampling filter: its radius, in pixels of the smaller image, and its weight at a distance.
#[derive(Clone, Copy, Debug)]
struct Filter {
    support: f64,
    weight: fn(f64) -> f64,
}

const BILINEAR: Filter = Filter { support: 1.0, weight: |x| (1.0 - x.abs()).max(0.0) };

/// Keys' cubic filter with a = -0.5.
const BICUBIC: Filter = Filter {
    support: 2.0,
    weight: |x| match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        _ => 0.0,
    },
};

/// The size that an image is resized to. Sizes are (height, width).
#[derive(Clone, Copy, Debug)]
enum Target {
    Unchanged,
    ShortestEdge(u32),
    Exactly((u32, u32)),
}

impl Target {
    fn of(self, (height, width): (u32, u32)) -> (u32, u32) {
        match self {
            Self::Unchanged => (height, width),
            Self::ShortestEdge(edge) => {
                let shortest = u64::from(height.min(width).max(1));
                let scaled =
                    |side: u32| (u64::from(edge) * u64::from(side) / shortest).min(u32::MAX.into()) as u32;
                (scaled(height), scaled(width))
            }
            Self::Exactly(size) => size,
        }
    }
}

/// The steps from an image to a vision tower's input, as preprocessor_config.json describes them.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    target: Target,
    filter: Filter,
    size: (u32, u32),
    factor: f64,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Preprocessor {
    /// Reads preprocessor_config.json, or, since transformers 5, a section of processor_config.json. Its
    /// images must have `side` pixels a side.
    pub fn of(folder: &Path, side: u32) -> Result<Self> {
        let (own, of_all) = (folder.join("preprocessor_config.json"), folder.join("processor_config.json"));
        let part = || -> Result<Option<Value>> {
            let value =
                if of_all.is_file() { read_json(&of_all)?["image_processor"].take() } else { Value::Null };
            Ok(Some(value).filter(|value| !value.is_null()))
        };
        let (name, value) = if own.is_file() {
            (own.display().to_string(), read_json(&own)?)
        } else if let Some(part) = part()? {
            (format!("{}'s image_processor", of_all.display()), part)
        } else {
            return Err(Error::model(format!(
                "{} holds no preprocessor_config.json, which says how the model wants images",
                folder.display()
            )));
        };
        let preprocessor = Self::read(&Config::new(&name, &value)?)?;
        match preprocessor.size() {
            (height, width) if (height, width) != (side, side) => Err(Error::model(format!(
                "{name} makes images of {height} by {width} pixels, but the model looks at {side} by \
                 {side}: are they of one model?"
            ))),
            _ => Ok(preprocessor),
        }
    }

    /// Reads a preprocessor_config.json. Absent fields have the defaults of transformers' CLIPImageProcessor.
    ///
    /// `do_convert_rgb` changes nothing: every image becomes RGB, as with transformers' `load_image`.
    ///
    /// # Errors
    /// [`Kind::Model`](crate::error::Kind::Model) for a wrong value, a filter other than bilinear and
    /// bicubic, padding, or settings with which images would come out in different sizes.
    pub fn read(config: &Config) -> Result<Self> {
        if config.bool("do_pad", false)? {
            return Err(config.wrong("do_pad", "padding is not supported"));
        }
        let target = match config.bool("do_resize", true)? {
            true => target(config, "size")?.unwrap_or(Target::ShortestEdge(224)),
            false => Target::Unchanged,
        };
        let size = match (config.bool("do_center_crop", true)?, target) {
            (true, _) => crop(config)?,
            (false, Target::Exactly(size)) => size,
            (false, _) => {
                let why =
                    "without it size must hold height and width, for all images to come out in one size";
                return Err(config.wrong("do_center_crop", why));
            }
        };
        let factor = config.positive_or("rescale_factor", 1.0 / 255.0)?;
        let mean = channels(config, "image_mean", [0.481_454_66, 0.457_827_5, 0.408_210_73])?;
        let std = channels(config, "image_std", [0.268_629_54, 0.261_302_6, 0.275_777_1])?;
        if !std.iter().all(|&std| std > 0.0) {
            return Err(config.wrong("image_std", "numbers above zero belong there"));
        }
        let normalize = config.bool("do_normalize", true)?;
        Ok(Self {
            target,
            filter: filter(config)?,
            size,
            factor: if config.bool("do_rescale", true)? { factor } else { 1.0 },
            mean: if normalize { mean } else { [0.0; 3] },
            std: if normalize { std } else { [1.0; 3] },
        })
    }

    /// The height and the width of the result, in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The image resized, cropped at its centre and normalised: `[height, width, 3]`, the channels being red,
    /// green and blue. Where the crop is larger than the image, the border is black.
    pub fn pixels(&self, image: &Image) -> Vec<f32> {
        let image = &image.0;
        let (width, height) = image.dimensions();
        let resized = self.target.of((height, width));
        let columns = taps(self.filter, width, resized.1, self.size.1);
        let rows = taps(self.filter, height, resized.0, self.size.0);
        let (pixels, _) = image.as_raw().as_chunks();
        let pixels = resample(&resample(pixels, width as usize, &columns), height as usize, &rows);
        let normalize = |channel: usize, value: u8| {
            ((f64::from(value) * self.factor) as f32 - self.mean[channel]) / self.std[channel]
        };
        pixels.iter().flat_map(|pixel| [0, 1, 2].map(|channel| normalize(channel, pixel[channel]))).collect()
    }
}

/// An image in RGB, eight bits per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Image(RgbImage);

impl Image {
    /// Reads an image file and turns it upright, as its EXIF data says. Of an animation, the first frame is
    /// taken.
    ///
    /// # Errors
    /// Of the kind Request where the file is missing, is not an image, or takes more than 512 MiB once
    /// decoded.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let failed = |e: &dyn fmt::Display| format!("{name} cannot be read as an image: {}", without_stop(e));
        let reader = ImageReader::open(path).map_err(|e| Error::request(failed(&e)).because(e))?;
        Self::read(reader).map_err(|e| Error::request(format!("{}; {FORMATS}", failed(&e))).because(e))
    }

    /// Reads an image from the bytes of a file.
    ///
    /// # Errors
    /// As for [`Image::open`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::read(ImageReader::new(Cursor::new(bytes))).map_err(|e| {
            Error::request(format!("these bytes are no image: {}; {FORMATS}", without_stop(&e))).because(e)
        })
    }

    fn read<R: BufRead + Seek>(reader: ImageReader<R>) -> Result<Self, ImageError> {
        let mut decoder = reader.with_guessed_format()?.into_decoder()?;
        // The reader's own limits count neither the decoded image nor its RGBA copy made here.
        let (width, height) = decoder.dimensions();
        Limits::default().reserve(decoder.total_bytes().max(4 * u64::from(width) * u64::from(height)))?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(Self(on_white(image)))
    }
}

const FORMATS: &str = "PNG, JPEG, WebP, GIF and BMP are read";

fn without_stop(e: &dyn fmt::Display) -> String {
    e.to_string().trim_end_matches('.').to_owned()
}

/// Composes an image on a white background, with Pillow's rounding.
fn on_white(image: DynamicImage) -> RgbImage {
    if matches!(image.color(), ColorType::L8 | ColorType::Rgb8) {
        return image.into_rgb8();
    }
    let image = eight_bits(image);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [red, green, blue, alpha] = image.get_pixel(x, y).0.map(u32::from);
        ::image::Rgb([red, green, blue].map(|colour| {
            let sum = (colour * alpha + 255 * (255 - alpha) + 128) << 7;
            (((sum >> 8) + sum) >> 15) as u8
        }))
    })
}

/// Keeps the upper eight of sixteen bits per channel, as Pillow does.
fn eight_bits(image: DynamicImage) -> RgbaImage {
    match image.color() {
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            let deep = image.into_rgba16();
            let upper = |x, y| ::image::Rgba(deep.get_pixel(x, y).0.map(|value| (value >> 8) as u8));
            RgbaImage::from_fn(deep.width(), deep.height(), upper)
        }
        _ => image.into_rgba8(),
    }
}

/// One output pixel along one axis: the first input pixel that contributes to it, and the weights from there
/// on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of the `window` pixels at the centre of the `output` pixels that `input` pixels are resized to.
/// Pixels outside of the output have no taps, and so are black. With `input` = `output`, each pixel has
/// weight 1.
///
/// The arithmetic is that of Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` (Resample.c).
fn taps(filter: Filter, input: u32, output: u32, window: u32) -> Vec<Taps> {
    let scale = f64::from(input) / f64::from(output);
    let stretch = scale.max(1.0);
    let support = filter.support * stretch;
    let start = (i64::from(output) - i64::from(window)).div_euclid(2);
    let tap = |at: i64| {
        if !(0..i64::from(output)).contains(&at) {
            return Taps { first: 0, weights: Vec::new() };
        }
        let center = (at as f64 + 0.5) * scale;
        let first = (center - support + 0.5) as u32;
        let end = ((center + support + 0.5) as u32).min(input);
        let weight = |x: u32| (filter.weight)((f64::from(x) - center + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / sum * f64::from(1 << PRECISION)).round() as i32;
        Taps { first: first as usize, weights: weights.iter().map(fixed).collect() }
    };
    (start..start + i64::from(window)).map(tap).collect()
}

/// Resizes an image along its rows: `[height, width]` → `[taps, height]`. The result is transposed, so that
/// a second call resizes the columns and transposes back.
fn resample(pixels: &[[u8; 3]], width: usize, taps: &[Taps]) -> Vec<[u8; 3]> {
    let height = pixels.len() / width.max(1);
    let mut out = vec![[0; 3]; taps.len() * height];
    for (y, row) in pixels.chunks_exact(width.max(1)).enumerate() {
        for (x, Taps { first, weights }) in taps.iter().enumerate() {
            let mut sums = [1 << (PRECISION - 1); 3];
            for (weight, pixel) in weights.iter().zip(&row[*first..]) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += weight * i32::from(*value);
                }
            }
            out[x * height + y] = sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8);
        }
    }
    out
}

fn filter(config: &Config) -> Result<Filter> {
    let number = match config.get("resample") {
        None => return Ok(BICUBIC),
        Some(number) => number.as_u64(),
    };
    let name = match number {
        Some(2) => return Ok(BILINEAR),
        Some(3) => return Ok(BICUBIC),
        Some(0) => "nearest",
        Some(1) => "Lanczos",
        Some(4) => "box",
        Some(5) => "Hamming",
        _ => "an unknown filter",
    };
    Err(config.wrong("resample", format!("{name} is not supported: 2 (bilinear) and 3 (bicubic) are")))
}

/// A size, given as a number, which is the shortest edge, or as an object with named sides.
fn target(config: &Config, field: &str) -> Result<Option<Target>> {
    let Some(value) = config.get(field) else { return Ok(None) };
    if !value.is_object() {
        return Ok(config.count(field, MAX_SIDE)?.map(Target::ShortestEdge));
    }
    let name = format!("{}: {field}", config.name());
    let sides = Config::new(&name, value)?;
    let side = |name| sides.count(name, MAX_SIDE);
    match (side("shortest_edge")?, side("height")?, side("width")?, sides.get("longest_edge")) {
        (Some(edge), None, None, None) => Ok(Some(Target::ShortestEdge(edge))),
        (None, Some(height), Some(width), None) => Ok(Some(Target::Exactly((height, width)))),
        _ => Err(config.wrong(field, "shortest_edge alone, or height and width, belong there")),
    }
}

/// The size of the centre crop: an object with height and width, or one number for a square.
fn crop(config: &Config) -> Result<(u32, u32)> {
    match target(config, "crop_size")? {
        None => Ok((224, 224)),
        Some(Target::Exactly(size)) => Ok(size),
        Some(Target::ShortestEdge(side)) if config.get("crop_size").is_some_and(Value::is_number) => {
            Ok((side, side))
        }
        Some(_) => Err(config.wrong("crop_size", "height and width belong there")),
    }
}

/// A list of three numbers, or one number for all three channels.
fn channels(config: &Config, field: &str, default: [f32; 3]) -> Result<[f32; 3]> {
    let Some(value) = config.get(field) else { return Ok(default) };
    let number = |value: &Value| value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
    let numbers: Option<Vec<f32>> = match value {
        Value::Array(list) => list.iter().map(number).collect(),
        one => number(one).map(|n| vec![n; 3]),
    };
    let three = numbers.and_then(|numbers| numbers.try_into().ok());
    three.ok_or_else(|| config.wrong(field, "three numbers or one belong there"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(config: Value) -> Result<Preprocessor> {
        Preprocessor::read(&Config::new("preprocessor_config.json", &config)?)
    }

    fn error(config: Value) -> String {
        read(config).expect_err("the configuration is wrong").to_string()
    }

    /// A gradient of 5 by 4 pixels. The expected values are Pillow's.
    #[test]
    fn resizes_like_pillow() {
        let image =
            RgbImage::from_fn(5, 4, |x, y| ::image::Rgb([x * 60, y * 80, x * y * 20].map(|v| v as u8)));
        let resized = |resample: u32, height: u32, width: u32| {
            let plain = json!({"size": {"height": height, "width": width}, "resample": resample,
                "do_center_crop": false, "do_rescale": false, "do_normalize": false});
            read(plain).expect("the configuration is right").pixels(&Image(image.clone()))
        };
        assert_eq!(resized(2, 1, 2), [60.0, 120.0, 30.0, 180.0, 120.0, 90.0]);
        assert_eq!(resized(3, 2, 1), [120.0, 47.0, 23.0, 120.0, 193.0, 97.0]);
        assert_eq!(resized(3, 1, 6)[6..12], [95.0, 120.0, 48.0, 145.0, 120.0, 73.0]);
    }

    #[test]
    fn black_surrounds_an_image_smaller_than_the_crop() {
        let plain = json!({"do_resize": false, "crop_size": {"height": 2, "width": 4},
            "do_rescale": false, "image_mean": 1, "image_std": 1});
        let preprocessor = read(plain).expect("the configuration is right");
        let image = Image(RgbImage::from_pixel(1, 3, ::image::Rgb([5; 3])));
        let red: Vec<f32> = preprocessor.pixels(&image).into_iter().step_by(3).collect();
        assert_eq!(preprocessor.size(), (2, 4));
        assert_eq!(red, [-1.0, -1.0, 4.0, -1.0, -1.0, -1.0, 4.0, -1.0]);
    }

    #[test]
    fn says_what_is_wrong() {
        let named = "preprocessor_config.json: ";
        assert_eq!(
            error(json!({"resample": 1})),
            format!("{named}resample is 1, but Lanczos is not supported: 2 (bilinear) and 3 (bicubic) are")
        );
        assert_eq!(
            error(json!({"size": {"height": 0, "width": 1}})),
            format!("{named}size: height is 0, but a whole number from 1 to 4096 belongs there")
        );
        for wrong in [
            json!({"size": {"longest_edge": 3}}),
            json!({"size": {"shortest_edge": 3, "longest_edge": 3}}),
            json!({"crop_size": {"shortest_edge": 3}}),
            json!({"crop_size": "3"}),
            json!({"do_center_crop": false}),
            json!({"do_pad": true}),
            json!({"image_mean": [1, 2]}),
            json!({"image_std": [1, 0, 1]}),
        ] {
            assert!(error(wrong).starts_with(named));
        }
    }
}
