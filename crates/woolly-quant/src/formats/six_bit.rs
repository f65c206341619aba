//! The 12 bytes in which `Q4_K` and `Q5_K` keep 8 scales and 8 minima of 6 bits.
//!
//! Bytes 0 to 3 are scales 0 to 3, bytes 4 to 7 minima 0 to 3, bytes 8 to 11 the lower halves of the scales (low) and
//! minima (high) 4 to 7, whose upper 2 bits are the upper 2 bits of bytes 0 to 3 and 4 to 7.

/// The scales and the minima, each 0 to 63.
#[inline(always)]
pub(super) fn unpack(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let mut scales = [0; 8];
    let mut mins = [0; 8];
    for j in 0..4 {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        mins[j + 4] = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The inverse of [`unpack`].
pub(super) fn pack(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
    packed
}
