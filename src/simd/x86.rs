//! [`Lanes`] for x86-64 processors.

#![allow(clippy::missing_safety_doc)] // `Lanes` has the safety section for all of its functions

use super::lanes::{Job, Lanes, Pair, Two};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
pub fn avx2<J: Job>(job: J) -> J::Out {
    job.run::<Avx2>()
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub fn avx512<J: Job>(job: J) -> J::Out {
    job.run::<Avx512>()
}

/// Only used inside [`avx2`] and [`avx512`], so that the features are available; likewise `Avx512` inside
/// [`avx512`].
pub struct Avx2;
pub struct Avx512;

/// Loads 32 bytes each as unsigned and as signed factors. With `SIGNED`, where both are signed, moves the
/// sign of u to x.
#[inline(always)]
unsafe fn factors<const SIGNED: bool>(u: *const u8, x: *const i8) -> (__m256i, __m256i) {
    unsafe {
        let (u, x) = (_mm256_loadu_si256(u.cast()), _mm256_loadu_si256(x.cast()));
        if SIGNED { (_mm256_abs_epi8(u), _mm256_sign_epi8(x, u)) } else { (u, x) }
    }
}

// SAFETY (both): inlined into functions that are compiled for the features; loads and stores are unaligned
// and of as many bytes as the trait says.
impl Lanes for Avx2 {
    const N: usize = 8;
    const MANY_REGISTERS: bool = false;
    type V = __m256;
    type Eight = Self;
    type Pair = Two<Self>;
    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(values) }
    }
    #[inline(always)]
    unsafe fn store(v: __m256, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn f16(bits: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(bits.cast())) }
    }
    #[inline(always)]
    unsafe fn bf16(bits: *const u8) -> __m256 {
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(bits.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn bytes(bytes: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast()))) }
    }
    #[inline(always)]
    fn multiply_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sum(v: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> __m256 {
        unsafe {
            let (u, x) = factors::<SIGNED>(u, x);
            // A sum of two products of at most 128 · 127 fits into 16 bits.
            let pairs = _mm256_maddubs_epi16(u, x);
            _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

impl Lanes for Avx512 {
    const N: usize = 16;
    const MANY_REGISTERS: bool = true;
    type V = __m512;
    type Eight = Avx2;
    type Pair = Self;
    #[inline(always)]
    fn prefetch(at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(values) }
    }
    #[inline(always)]
    unsafe fn store(v: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn f16(bits: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(bits.cast())) }
    }
    #[inline(always)]
    unsafe fn bf16(bits: *const u8) -> __m512 {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bits.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    unsafe fn bytes(bytes: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()))) }
    }
    #[inline(always)]
    fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sum(v: __m512) -> f32 {
        unsafe {
            let high = _mm512_extractf32x8_ps::<1>(v);
            Avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(v), high))
        }
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> __m256 {
        unsafe {
            let (u, x) = factors::<SIGNED>(u, x);
            _mm256_cvtepi32_ps(_mm256_dpbusd_epi32(_mm256_setzero_si256(), u, x))
        }
    }
}

// SAFETY: as above.
impl Pair for Avx512 {
    type Eight = Avx2;
    type V = __m512;
    #[inline(always)]
    fn splat(value: f32) -> __m512 {
        <Self as Lanes>::splat(value)
    }
    #[inline(always)]
    fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        <Self as Lanes>::multiply_add(a, b, c)
    }
    #[inline(always)]
    fn sum(v: __m512) -> __m256 {
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
    }
    #[inline(always)]
    unsafe fn spread<const TIMES: usize>(values: *const f32) -> __m512 {
        unsafe {
            if TIMES == 8 {
                let two = _mm512_castpd_ps(_mm512_set1_pd(values.cast::<f64>().read_unaligned()));
                return _mm512_permutevar_ps(
                    two,
                    _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                );
            }
            let four = _mm512_broadcast_f32x4(_mm_loadu_ps(values));
            _mm512_permutevar_ps(four, _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0))
        }
    }
    #[inline(always)]
    unsafe fn byte_products<const SIGNED: bool>(u: *const u8, x: *const i8) -> __m512 {
        unsafe {
            let (u, x) = (_mm512_loadu_si512(u.cast()), _mm512_loadu_si512(x.cast()));
            let zero = _mm512_setzero_si512();
            // One factor must be unsigned: u (x + 128) - 128 u, where the last is the same for every x.
            let products = if SIGNED {
                let high = _mm512_set1_epi8(-128);
                let start = _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, high, u));
                _mm512_dpbusd_epi32(start, _mm512_xor_si512(x, high), u)
            } else {
                _mm512_dpbusd_epi32(zero, u, x)
            };
            _mm512_cvtepi32_ps(products)
        }
    }
}
