//! Where contents go that are not on the device, and who carries them there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use woolly_model::Decoder;
use woolly_tensor::CacheType;

use super::codec::{Codec, NotFinite};
use super::manager::{Action, BlockManager, Place};

/// Why contents could not be moved. What is lost will be computed again; everything else has been carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The spill file.
    #[error("cannot {what} the spill file in {dir}: {source}; blocks will be computed again")]
    Spill {
        /// What was tried.
        what: &'static str,
        /// The folder it is in.
        dir: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A number that compression has no code for.
    #[error("cache block {block} holds a value that is not finite; it will be computed again")]
    NotFinite {
        /// The block.
        block: u32,
    },
    /// The device.
    #[error(transparent)]
    Device(#[from] woolly_model::Error),
    /// A place that holds nothing, which is a defect of the caller.
    #[error("nothing is stored at {0:?}")]
    Missing(Place),
}

/// Compressed blocks in memory and the spill file.
#[derive(Debug)]
pub struct KvStore {
    codec: Option<Codec>,
    block_bytes: usize,
    packed: Vec<Option<Box<[u8]>>>,
    /// One saved block on its way.
    raw: Vec<u8>,
    dir: PathBuf,
    file: Option<File>,
}

impl KvStore {
    /// Returns the bytes of one compressed block, for [`KvOptions::packed_bytes`](super::KvOptions), or `None` where the
    /// cache's storage is compressed already.
    pub fn packed_bytes(storage: CacheType, block_bytes: usize) -> Option<usize> {
        Codec::new(storage, block_bytes).map(|codec| codec.packed_bytes())
    }

    /// Makes an empty store for blocks of a cache with this storage; the spill file will be made in `dir` when it is first
    /// needed, and vanishes with the store or the process.
    pub fn new(storage: CacheType, block_bytes: usize, dir: &Path) -> Self {
        Self {
            codec: Codec::new(storage, block_bytes),
            block_bytes,
            packed: Vec::new(),
            raw: vec![0; block_bytes],
            dir: dir.to_owned(),
            file: None,
        }
    }

    /// Carries out what the manager asks for; to be called before the step that [`BlockManager::reserve`] was called for.
    ///
    /// # Errors
    /// The first [`StoreError`]. Contents that could not be moved are forgotten then, which shortens the sequences that
    /// hold them: each must be reserved again, and starts at its [`BlockManager::computed`].
    pub fn carry_out(&mut self, manager: &mut BlockManager, device: &mut dyn Decoder) -> Result<(), StoreError> {
        let mut lost = Vec::new();
        let mut first = None;
        for action in manager.take_actions() {
            if let Err(error) = self.act(action, device, &mut lost) {
                first.get_or_insert(error);
            }
        }
        lost.iter().for_each(|&place| manager.lose(place));
        // Losing pages frees their places, which takes no more than forgetting.
        for action in manager.take_actions() {
            self.act(action, device, &mut Vec::new())?;
        }
        first.map_or(Ok(()), Err)
    }

    /// The buffer that contents pass through; its contents mean nothing between calls.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        &mut self.raw
    }

    fn act(&mut self, action: Action, device: &mut dyn Decoder, lost: &mut Vec<Place>) -> Result<(), StoreError> {
        let (from, to) = match action {
            Action::Forget(place) => {
                lost.retain(|&other| other != place);
                return self.forget(place, device);
            }
            Action::Copy { from, to } => (Place::Device(from), Place::Device(to)),
            Action::Move { from, to } => (from, to),
        };
        let was_lost = lost.contains(&from);
        lost.retain(|&other| other != to && !(other == from && matches!(action, Action::Move { .. })));
        let result = if was_lost { Ok(()) } else { self.transfer(from, to, device) };
        if was_lost || result.is_err() {
            lost.push(to);
        }
        result
    }

    fn transfer(&mut self, from: Place, to: Place, device: &mut dyn Decoder) -> Result<(), StoreError> {
        match (from, to) {
            (Place::Device(from), Place::Device(to)) => Ok(device.copy_block(from, to)?),
            (Place::Device(block), to) => {
                device.save_block(block, &mut self.raw)?;
                self.put(block, to)
            }
            (from, Place::Device(block)) => {
                self.fetch(from)?;
                Ok(device.load_block(block, &self.raw)?)
            }
            (from, to) => {
                let bytes = self.take_packed(from)?;
                self.write(to, &bytes)
            }
        }
    }

    /// Stores the saved block in `raw`.
    fn put(&mut self, block: u32, to: Place) -> Result<(), StoreError> {
        let (Place::Packed(slot), Some(codec)) = (to, self.codec) else {
            let raw = std::mem::take(&mut self.raw);
            let result = self.write(to, &raw);
            self.raw = raw;
            return result;
        };
        let mut bytes = vec![0; codec.packed_bytes()].into_boxed_slice();
        codec.pack(&self.raw, &mut bytes).map_err(|NotFinite| StoreError::NotFinite { block })?;
        let slot = slot as usize;
        if slot >= self.packed.len() {
            self.packed.resize(slot + 1, None);
        }
        self.packed[slot] = Some(bytes);
        Ok(())
    }

    /// Reads a stored block into `raw` and forgets it.
    fn fetch(&mut self, from: Place) -> Result<(), StoreError> {
        let Place::File { slot, packed } = from else {
            let bytes = self.take_packed(from)?;
            return self.unpack(from, &bytes);
        };
        if !packed {
            let mut raw = std::mem::take(&mut self.raw);
            let result = self.read(slot, &mut raw);
            self.raw = raw;
            return result;
        }
        let mut bytes = vec![0; self.codec.map_or(0, |codec| codec.packed_bytes())];
        self.read(slot, &mut bytes)?;
        self.unpack(from, &bytes)
    }

    fn unpack(&mut self, from: Place, bytes: &[u8]) -> Result<(), StoreError> {
        let codec = self.codec.ok_or(StoreError::Missing(from))?;
        codec.unpack(bytes, &mut self.raw);
        Ok(())
    }

    fn take_packed(&mut self, from: Place) -> Result<Box<[u8]>, StoreError> {
        let Place::Packed(slot) = from else { return Err(StoreError::Missing(from)) };
        self.packed.get_mut(slot as usize).and_then(Option::take).ok_or(StoreError::Missing(from))
    }

    fn forget(&mut self, place: Place, device: &mut dyn Decoder) -> Result<(), StoreError> {
        match place {
            Place::Device(block) => Ok(device.release_blocks(&[block])?),
            Place::Packed(slot) => {
                drop(self.packed.get_mut(slot as usize).and_then(Option::take));
                Ok(())
            }
            // The slot is simply used again.
            Place::File { .. } => Ok(()),
        }
    }

    fn write(&mut self, to: Place, bytes: &[u8]) -> Result<(), StoreError> {
        let Place::File { slot, .. } = to else { return Err(StoreError::Missing(to)) };
        let at = u64::from(slot) * self.block_bytes as u64;
        let spill = |what, source| StoreError::Spill { what, dir: self.dir.clone(), source };
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(&self.dir).map_err(|source| spill("create", source))?);
        }
        let Some(file) = &mut self.file else { return Err(StoreError::Missing(to)) };
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes)).map_err(|source| spill("write to", source))
    }

    fn read(&mut self, slot: u32, bytes: &mut [u8]) -> Result<(), StoreError> {
        let at = u64::from(slot) * self.block_bytes as u64;
        let missing = StoreError::Missing(Place::File { slot, packed: false });
        let file = self.file.as_mut().ok_or(missing)?;
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes));
        read.map_err(|source| StoreError::Spill { what: "read", dir: self.dir.clone(), source })
    }
}
