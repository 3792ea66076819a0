// Implements interface `kv_write` for pairs of f16.
#import kv
alias KvWord = u32;
const UNIT = 2u;
const LARGEST = 65504.0; // of all f16
fn write_kv(at: u32, numbers: array<f32, UNIT>) {
    cache[at / 2u] = pack2x16float(clamp(vec2(numbers[0], numbers[1]), vec2(-LARGEST), vec2(LARGEST)));
}
