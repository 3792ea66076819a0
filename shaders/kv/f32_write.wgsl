// Implements interface `kv_write` for f32. The program binds `cache`, an array of KvWord.
#import kv
alias KvWord = f32;
const UNIT = 1u; // numbers that are written at once
// Writes UNIT numbers of a key or a value, from index `at` of the cache on, a multiple of UNIT.
fn write_kv(at: u32, numbers: array<f32, UNIT>) { cache[at] = numbers[0]; }
