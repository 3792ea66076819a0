//! SIMD vectors of f32. The fast forms of kernels are written once, generic over [`Lanes`], for all
//! instruction sets.

#![allow(clippy::missing_safety_doc)] // `Lanes` has the safety section for all of its functions

#[cfg(target_arch = "aarch64")]
use super::neon;
#[cfg(target_arch = "x86_64")]
use super::x86;
use half::{bf16, f16};

/// The instruction sets that fast forms are compiled for. They are detected at run time, because a generic
/// build must run on every processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// Plain arrays, vectorised by the compiler.
    Portable,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 with its instructions for products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// NEON with its instructions for products of bytes (dotprod).
    #[cfg(target_arch = "aarch64")]
    NeonDot,
}

/// A computation that is generic over the instruction set. `run` must be inlined into a function that is
/// compiled for these instructions. Write loops rather than closures in it: a closure that is not inlined is
/// compiled without the instructions.
pub trait Job {
    type Out;
    fn run<L: Lanes>(self) -> Self::Out;
}

impl Simd {
    /// The best instruction set that this processor has.
    pub fn detect() -> Self {
        *Self::all().last().expect("the portable form")
    }

    /// All instruction sets that this processor has, the best last.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! has { ($($feature:tt)*) => { true $(&& is_x86_feature_detected!($feature))* } }
            if has!("avx2" "fma" "f16c") {
                all.push(Self::Avx2);
                if has!("avx512f" "avx512bw" "avx512dq" "avx512vl" "avx512vnni") {
                    all.push(Self::Avx512);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.push(Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                all.push(Self::NeonDot);
            }
        }
        all
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "neon-dotprod",
        }
    }

    /// Whether [`Lanes::byte_products`] has a fast implementation.
    pub fn has_byte_products(self) -> bool {
        self != Self::Portable
    }

    /// Runs a job with these instructions.
    pub fn run<J: Job>(self, job: J) -> J::Out {
        match self {
            Self::Portable => job.run::<Portable>(),
            // SAFETY (both): `all` has detected the features that the function is compiled for.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::avx2(job) },
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::avx512(job) },
            #[cfg(target_arch = "aarch64")]
            Self::Neon => job.run::<neon::Neon<false>>(),
            // SAFETY: `all` has detected the feature that the function is compiled for.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => unsafe { neon::dotprod(job) },
        }
    }
}

/// A SIMD vector of `N` f32 and its operations. The order of a sum over lanes is fixed, but depends on `N`.
///
/// # Safety
/// Functions that take a pointer read (or write) `N` values from there on, at any alignment.
pub trait Lanes {
    const N: usize;
    /// Whether there are 32 registers for vectors of `N` lanes rather than 16.
    const MANY_REGISTERS: bool;
    /// The vector type.
    type V: Copy;
    /// Vectors of eight lanes with the same instructions.
    type Eight: Lanes;
    /// Pairs of these.
    type Pair: Pair<Eight = Self::Eight>;
    fn splat(value: f32) -> Self::V;
    unsafe fn load(values: *const f32) -> Self::V;
    unsafe fn store(v: Self::V, to: *mut f32);
    /// Loads `N` f16.
    unsafe fn f16(bits: *const u8) -> Self::V;
    /// Loads `N` bf16.
    unsafe fn bf16(bits: *const u8) -> Self::V;
    /// Loads `N` unsigned bytes as numbers.
    unsafe fn bytes(bytes: *const u8) -> Self::V;
    /// a · b + c
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn add(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of the lanes.
    fn sum(v: Self::V) -> f32;
    /// Prefetches the cache line at an address, which need not be valid. A no-op where there is no such
    /// instruction.
    #[inline(always)]
    fn prefetch(at: *const u8) {
        let _ = at;
    }
    /// Reads 32 bytes each at `u` and `x`, and returns Σ u · x over each group of four of them. u is unsigned
    /// and at most 127; with `SIGNED` it is signed, and then u and x must not both be -128.
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> <Self::Eight as Lanes>::V;
}

/// Two vectors of eight lanes, which are one register where there are such.
///
/// # Safety
/// The functions take pointers to as many values as they say, at any alignment.
pub trait Pair {
    type Eight: Lanes;
    type V: Copy;
    fn splat(value: f32) -> Self::V;
    /// a · b + c
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of the two vectors.
    fn sum(v: Self::V) -> <Self::Eight as Lanes>::V;
    /// Reads 16 / `TIMES` values, and repeats each `TIMES` (eight or four) times.
    unsafe fn spread<const TIMES: usize>(values: *const f32) -> Self::V;
    /// [`Lanes::byte_products`] of 64 bytes each.
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> Self::V;
}

/// A pair in two registers, for instruction sets whose registers have at most eight lanes.
pub struct Two<L>(std::marker::PhantomData<L>);

impl<L: Lanes<Eight = L>> Pair for Two<L> {
    type Eight = L;
    type V = [L::V; 2];
    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        [L::splat(value); 2]
    }
    #[inline(always)]
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        [L::multiply_add(a[0], b[0], c[0]), L::multiply_add(a[1], b[1], c[1])]
    }
    #[inline(always)]
    fn sum([low, high]: Self::V) -> L::V {
        L::add(low, high)
    }
    #[inline(always)]
    unsafe fn spread<const TIMES: usize>(values: *const f32) -> Self::V {
        unsafe {
            if TIMES == 8 {
                return [L::splat(*values), L::splat(*values.add(1))];
            }
            let [a, b, c, d] = values.cast::<[f32; 4]>().read_unaligned();
            [L::load([a, a, a, a, b, b, b, b].as_ptr()), L::load([c, c, c, c, d, d, d, d].as_ptr())]
        }
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> Self::V {
        unsafe { [L::byte_products::<SIGNED>(u, x), L::byte_products::<SIGNED>(u.add(32), x.add(32))] }
    }
}

pub struct Portable;

impl Lanes for Portable {
    const N: usize = 8;
    const MANY_REGISTERS: bool = false;
    type V = [f32; 8];
    type Eight = Self;
    type Pair = Two<Self>;
    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self::V {
        unsafe { values.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(v: Self::V, to: *mut f32) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn f16(bits: *const u8) -> Self::V {
        unsafe { bits.cast::<[[u8; 2]; 8]>().read() }.map(|b| f16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn bf16(bits: *const u8) -> Self::V {
        unsafe { bits.cast::<[[u8; 2]; 8]>().read() }.map(|b| bf16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn bytes(bytes: *const u8) -> Self::V {
        unsafe { bytes.cast::<[u8; 8]>().read() }.map(f32::from)
    }
    #[inline(always)]
    fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Not mul_add: on a processor without that instruction it is a call to a library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sum([a, b, c, d, e, f, g, h]: Self::V) -> f32 {
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> Self::V {
        let (u, x) = unsafe { (u.cast::<[[u8; 4]; 8]>().read(), x.cast::<[[i8; 4]; 8]>().read()) };
        let factor = |u: u8| if SIGNED { i32::from(u as i8) } else { i32::from(u) };
        std::array::from_fn(|i| (0..4).map(|j| factor(u[i][j]) * i32::from(x[i][j])).sum::<i32>() as f32)
    }
}
