//! Sessions in files: the tokens of a sequence and the contents of its blocks.
//!
//! ```text
//! header     magic "WOOLLYKV", u32 version, u32 tokens a block, u128 fingerprint, u64 bytes a block, u64 tokens, u128 checksum
//! tokens     u32 each, u128 checksum
//! each block: its bytes, u128 checksum
//! ```
//!
//! All numbers are little-endian. Of the last, partly filled block only the sequence's tokens are kept: what lies behind
//! them belongs to whoever had the block before, and must not get into anyone's file.

use std::io::{self, Read, Write};

use woolly_model::Decoder;
use woolly_tensor::BLOCK_TOKENS;

use super::hash;
use super::manager::{BlockManager, NoSpace, SeqId};
use super::store::{KvStore, StoreError};

const MAGIC: [u8; 8] = *b"WOOLLYKV";
const VERSION: u32 = 2;
const HEADER: usize = 8 + 4 + 4 + 16 + 8 + 8;
const CHECKSUM: usize = 16;

/// What keys and values depend on beside the tokens; a session fits only where the fingerprint is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Begins a fingerprint of nothing.
    pub fn new() -> Self {
        Self(hash::EMPTY)
    }

    /// Returns the fingerprint of what this one is of, and `part`: metadata, samples of the weights, the cache's storage.
    #[must_use]
    pub fn with(self, part: &[u8]) -> Self {
        Self(hash::bytes(self.0, part))
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a session cannot be saved or restored; the cache is sound after each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Reading or writing failed.
    #[error("the session cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// The file is something else.
    #[error("this is no saved session of Woolly")]
    NotASession,
    /// The file is from another version.
    #[error("the session has format {found}, but this version of Woolly reads format {VERSION}; compute it again")]
    Version {
        /// Number in the file.
        found: u32,
    },
    /// The session was saved with another model, another cache type or another backend.
    #[error("the session belongs to another model or another type of cache ({what} differs)")]
    OtherModel {
        /// What differs.
        what: &'static str,
    },
    /// The contents are not those that were written.
    #[error("the session is damaged: the checksum of {what} does not fit")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// There are more tokens than the cache has room for.
    #[error("the session has {tokens} tokens, but the cache has room for {room}")]
    TooLong {
        /// Tokens of the session.
        tokens: u64,
        /// Tokens of the cache.
        room: usize,
    },
    /// Running sequences leave no room.
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    /// Contents could not be moved.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A session that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    /// All its tokens.
    pub ids: Vec<u32>,
    /// The first of them whose keys and values are in the cache now.
    pub cached_tokens: usize,
}

impl KvStore {
    /// Writes a sequence's tokens and blocks; the sequence counts as running afterwards.
    ///
    /// # Errors
    /// [`SessionError::Io`] when writing fails; [`SessionError::NoSpace`] and [`SessionError::Store`] when a preempted
    /// sequence cannot be brought back.
    pub fn save(
        &mut self,
        manager: &mut BlockManager,
        device: &mut dyn Decoder,
        seq: &SeqId,
        fingerprint: Fingerprint,
        out: &mut dyn Write,
    ) -> Result<(), SessionError> {
        manager.reserve(seq, 0)?;
        self.carry_out(manager, device)?;
        let tokens = manager.computed(seq);
        write_checked(
            out,
            &Header { fingerprint, block_bytes: device.block_bytes(), tokens: tokens as u64 }.to_bytes(),
        )?;
        let ids: Vec<u8> = manager.tokens(seq).flatten().flat_map(|id| id.to_le_bytes()).collect();
        write_checked(out, &ids)?;
        for (at, &block) in manager.table(seq)[..tokens.div_ceil(BLOCK_TOKENS)].iter().enumerate() {
            device.save_block(block, self.buffer()).map_err(StoreError::from)?;
            device
                .keep_tokens(BLOCK_TOKENS.min(tokens - at * BLOCK_TOKENS), self.buffer())
                .map_err(StoreError::from)?;
            write_checked(out, self.buffer())?;
        }
        Ok(out.flush()?)
    }

    /// Reads what [`save`](Self::save) wrote into the cache, where a prompt with this `salt` will find it.
    ///
    /// # Errors
    /// Any [`SessionError`]; nothing that failed its checksum is in the cache then. A file can be anything: none makes this
    /// function panic or take more memory than the cache's limit.
    pub fn restore(
        &mut self,
        manager: &mut BlockManager,
        device: &mut dyn Decoder,
        salt: u64,
        fingerprint: Fingerprint,
        input: &mut dyn Read,
    ) -> Result<Restored, SessionError> {
        let header = Header::read(input)?;
        let room = manager.total_blocks() * BLOCK_TOKENS;
        let tokens = header.check(fingerprint, device.block_bytes(), room)?;
        let mut bytes = vec![0; tokens * 4];
        read_checked(input, &mut bytes, "the tokens")?;
        let ids: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|&id| u32::from_le_bytes(id)).collect();
        let seq = manager.begin(&ids, salt, tokens).seq;
        let result = self.read_blocks(manager, device, &seq, &ids, input);
        manager.release(seq);
        result.map(|()| Restored { ids, cached_tokens: tokens })
    }

    fn read_blocks(
        &mut self,
        manager: &mut BlockManager,
        device: &mut dyn Decoder,
        seq: &SeqId,
        ids: &[u32],
        input: &mut dyn Read,
    ) -> Result<(), SessionError> {
        for (at, block) in ids.chunks(BLOCK_TOKENS).enumerate() {
            let begun = manager.computed(seq).saturating_sub(at * BLOCK_TOKENS);
            let missing = &block[begun.min(BLOCK_TOKENS)..];
            if missing.is_empty() {
                // The cache has it; what the file says is only checked.
                read_checked(input, self.buffer(), "a block")?;
                continue;
            }
            manager.reserve(seq, missing.len())?;
            self.carry_out(manager, device)?;
            // After the contents have been moved: they pass through the same buffer.
            read_checked(input, self.buffer(), "a block")?;
            let to = manager.table(seq)[at];
            device.load_block(to, self.buffer()).map_err(StoreError::from)?;
            manager.commit(seq, missing);
        }
        Ok(())
    }
}

struct Header {
    fingerprint: Fingerprint,
    block_bytes: usize,
    tokens: u64,
}

impl Header {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((BLOCK_TOKENS as u32).to_le_bytes());
        bytes.extend(self.fingerprint.0.to_le_bytes());
        bytes.extend((self.block_bytes as u64).to_le_bytes());
        bytes.extend(self.tokens.to_le_bytes());
        bytes
    }

    /// Reads a header; the version is looked at first, since another one may look different from there on.
    fn read(input: &mut dyn Read) -> Result<Self, SessionError> {
        let mut bytes = [0; HEADER];
        read_exact(input, &mut bytes[..12]).map_err(|error| match error {
            SessionError::Damaged { .. } => SessionError::NotASession,
            other => other,
        })?;
        if bytes[..8] != MAGIC {
            return Err(SessionError::NotASession);
        }
        match u32_at(&bytes, 8) {
            VERSION => (),
            found => return Err(SessionError::Version { found }),
        }
        read_exact(input, &mut bytes[12..])?;
        expect_checksum(input, &bytes, "the header")?;
        if u32_at(&bytes, 12) as usize != BLOCK_TOKENS {
            return Err(SessionError::OtherModel { what: "the number of tokens of a block" });
        }
        let fingerprint = Fingerprint(u128::from(u64_at(&bytes, 16)) | u128::from(u64_at(&bytes, 24)) << 64);
        let block_bytes = usize::try_from(u64_at(&bytes, 32)).unwrap_or(usize::MAX);
        Ok(Self { fingerprint, block_bytes, tokens: u64_at(&bytes, 40) })
    }

    /// Returns the number of tokens of a session that fits here.
    fn check(&self, fingerprint: Fingerprint, block_bytes: usize, room: usize) -> Result<usize, SessionError> {
        if self.fingerprint != fingerprint {
            return Err(SessionError::OtherModel { what: "the fingerprint" });
        }
        if self.block_bytes != block_bytes {
            return Err(SessionError::OtherModel { what: "the size of a block" });
        }
        let tokens = usize::try_from(self.tokens).unwrap_or(usize::MAX);
        if tokens > room { Err(SessionError::TooLong { tokens: self.tokens, room }) } else { Ok(tokens) }
    }
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u64_at(bytes, at) as u32
}

/// Reads the eight bytes at `at`, with zeros behind the end.
fn u64_at(bytes: &[u8; HEADER], at: usize) -> u64 {
    bytes[at..].iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn write_checked(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&hash::bytes(hash::EMPTY, bytes).to_le_bytes())
}

fn read_checked(input: &mut dyn Read, bytes: &mut [u8], what: &'static str) -> Result<(), SessionError> {
    read_exact(input, bytes)?;
    expect_checksum(input, bytes, what)
}

fn expect_checksum(input: &mut dyn Read, bytes: &[u8], what: &'static str) -> Result<(), SessionError> {
    let mut checksum = [0; CHECKSUM];
    read_exact(input, &mut checksum)?;
    let fits = checksum == hash::bytes(hash::EMPTY, bytes).to_le_bytes();
    if fits { Ok(()) } else { Err(SessionError::Damaged { what }) }
}

/// Fills `bytes`; a file that ends before is damaged, not a failure of the system.
fn read_exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<(), SessionError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SessionError::Damaged { what: "the whole, which ends early," },
        _ => SessionError::Io(error),
    })
}
