//! The cost of an answer, for `--stats` and for /stats in a conversation.

use super::DeviceArgs;
use crate::{
    backend::Bandwidth,
    engine::{Engine, Timing},
    workload::{Phase, Workload},
};
use std::{fmt, time::Duration};

/// Formats the numbers as text.
pub struct Stats<'a> {
    pub engine: &'a Engine,
    /// All tokens of the prompt, including those that were in the cache already.
    pub prompt_tokens: usize,
    pub timing: Timing,
    /// The bandwidth of the device's memory, if it could be measured.
    pub bandwidth: Option<Bandwidth>,
}

/// Measures the bandwidth of a device's memory now, while the model is loaded.
pub fn bandwidth(device: &DeviceArgs) -> Option<Bandwidth> {
    // Where memory is too short to measure it, the other numbers are still shown.
    device.open().and_then(|device| device.bandwidth()).ok()
}

impl Stats<'_> {
    /// Bytes read and written for each token of the answer, at the context length in the middle of it.
    fn bytes_per_token(&self) -> u64 {
        let context = (self.prompt_tokens + self.timing.decode_tokens / 2) as u32;
        let load = Workload { rows: 1, outputs: 1, context, ..Workload::default() };
        self.engine.plans().bytes(Phase::Decode, &load)
    }
}

impl fmt::Display for Stats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { engine, timing, .. } = self;
        let rate = |tokens: usize, time: Duration| match time.is_zero() {
            true => 0.0,
            false => tokens as f64 / time.as_secs_f64(),
        };
        let pace = |tokens: usize, time: Duration| {
            format!("{tokens} tokens in {:.2} s, {:.1} a second", time.as_secs_f64(), rate(tokens, time))
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let plans = engine.plans();
        writeln!(
            f,
            "loading   {:.2} s for weights, programs {:.2} s longer",
            engine.load_time.load.as_secs_f64(),
            engine.load_time.compile.as_secs_f64()
        )?;
        let prefill = pace(timing.prefill_tokens, timing.prefill);
        writeln!(f, "prefill   {prefill}; the first of the answer came with them")?;
        writeln!(f, "decode    {}", pace(timing.decode_tokens, timing.decode))?;
        if let (Some(Bandwidth { read_gb_s, .. }), 1..) = (self.bandwidth, timing.decode_tokens) {
            let gb_s = self.bytes_per_token() as f64 * rate(timing.decode_tokens, timing.decode) / 1e9;
            let share = 100.0 * gb_s / read_gb_s;
            writeln!(
                f,
                "bandwidth {gb_s:.1} GB/s while decoding, {share:.0} % of the device's {read_gb_s:.0}"
            )?;
        }
        writeln!(
            f,
            "memory    {:.1} MiB of weights, {:.1} MiB of cache for {} tokens",
            mib(engine.weights_bytes()),
            mib(plans.cache_bytes()),
            engine.context()
        )
    }
}
