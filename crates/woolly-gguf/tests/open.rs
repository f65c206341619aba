//! Opening paths: every setting, what is not a GGUF file, split models, and the files of the data folder.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fixture::{small_model, touch_everything};
use tempfile::TempDir;
use woolly_gguf::{Error, Foreign, GGUFLoader, GGUFWriter, SplitFault};
use woolly_quant::TensorType;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn model_in(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("model.gguf");
    small_model().write_file(&path).expect("written");
    path
}

fn error_of(path: &Path) -> Error {
    GGUFLoader::open(path).expect_err("a file that must be refused")
}

#[test]
fn every_setting_gives_the_same_model() {
    let folder = folder();
    let path = model_in(&folder);
    let expected = GGUFLoader::from_bytes(fs::read(&path).expect("readable").into()).expect("valid");
    for use_mmap in [true, false] {
        for aligned in [true, false] {
            for prefetch in [None, Some(0), Some(1), Some(usize::MAX)] {
                for copy in [None, Some(false), Some(true)] {
                    let builder = GGUFLoader::builder().use_mmap(use_mmap).page_aligned(aligned);
                    let builder = prefetch.map_or(builder.clone(), |mb| builder.prefetch_size_mb(mb));
                    let builder = copy.map_or(builder.clone(), |copy| builder.copy_small_pages(copy));
                    let prefetches = prefetch.is_some_and(|mb| mb > 0);
                    let copies_nothing = copy == Some(true) && !(use_mmap && aligned && prefetch != Some(0));
                    let contradiction = if copies_nothing {
                        Some("copy_small_pages")
                    } else {
                        (!use_mmap && prefetches).then_some("prefetch_size_mb")
                    };
                    match builder.build(&path) {
                        Err(Error::Config { field, .. }) => assert_eq!(contradiction, Some(field), "{builder:?}"),
                        Err(other) => panic!("{builder:?}: {other}"),
                        Ok(loader) => {
                            assert_eq!(contradiction, None, "{builder:?}");
                            assert_eq!(loader.path(), Some(path.as_path()));
                            assert_same(&loader, &expected);
                        }
                    }
                }
            }
        }
    }
}

fn assert_same(loader: &GGUFLoader, expected: &GGUFLoader) {
    touch_everything(loader);
    assert!(loader.metadata().iter().eq(expected.metadata().iter()));
    assert_eq!(loader.tensors().len(), expected.tensors().len());
    for (found, wanted) in loader.tensors().iter().zip(expected.tensors()) {
        assert_eq!((found.name(), found.ty(), found.dims()), (wanted.name(), wanted.ty(), wanted.dims()));
        assert_eq!(found.bytes(), wanted.bytes());
    }
}

/// A tensor of 64 GiB that takes no room on the disk: reading any considerable part of it would take longer.
#[cfg(target_os = "linux")]
#[test]
fn opening_touches_no_tensor_data() {
    let folder = folder();
    let path = folder.path().join("sparse.gguf");
    let elements = 1u64 << 34;
    let tiny = GGUFWriter::new().tensor("t", &[1], TensorType::F32, [0; 4]).to_bytes().expect("valid");
    let dimension = tiny.windows(8).rposition(|bytes| bytes == 1u64.to_le_bytes()).expect("the dimension");
    let head = [&tiny[..dimension], &elements.to_le_bytes(), &tiny[dimension + 8..]].concat();
    fs::write(&path, head).expect("written");
    let sparse = fs::OpenOptions::new().write(true).open(&path);
    if let Err(error) = sparse.and_then(|file| file.set_len(elements * 4 + 4096)) {
        return woolly_testdata::skip("opening_touches_no_tensor_data", &format!("no sparse file: {error}"));
    }
    for aligned in [true, false] {
        let start = Instant::now();
        let loader = GGUFLoader::builder().prefetch_size_mb(0).page_aligned(aligned).build(&path).expect("valid");
        assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
        assert_eq!(loader.tensor("t").map(|t| t.byte_len()), Some(elements * 4));
    }
}

#[test]
fn data_outlives_the_loader() {
    let folder = folder();
    let loader = GGUFLoader::open(model_in(&folder)).expect("valid");
    let tokens = loader.metadata().require_strings("tokens").expect("strings").clone();
    let data = loader.tensor_bytes(&loader.tensors()[2]);
    drop(loader);
    assert_eq!(data[4..8], 1f32.to_le_bytes());
    assert_eq!(tokens.get(0), Some(&b"<s>"[..]));
}

#[test]
fn what_is_not_a_model_is_named() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    let page = [&b"<!DOCTYPE html><title>Sign in</title>"[..], &[b' '; 5000]].concat();
    let cases: [(&[u8], Foreign); 3] = [
        (&page, Foreign::Html),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", Foreign::GitLfsPointer),
        (b"\x1f\x8b", Foreign::Gzip),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).expect("written");
        for use_mmap in [true, false] {
            let error = GGUFLoader::builder().use_mmap(use_mmap).build(&path).expect_err("not a model");
            assert!(matches!(error.root(), Error::Foreign(found) if *found == expected), "{error}");
            assert!(error.to_string().starts_with(path.to_str().expect("UTF-8")), "{error}");
        }
    }
    fs::write(&path, b"").expect("written");
    assert!(matches!(error_of(&path).root(), Error::Empty));
    assert!(matches!(error_of(folder.path()).root(), Error::NotAFile { kind: "directory", .. }));
    assert!(matches!(error_of(&folder.path().join("absent.gguf")).root(), Error::Io { .. }));
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let folder = folder();
    let pipe = folder.path().join("pipe.gguf");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(matches!(error_of(&pipe).root(), Error::NotAFile { kind: "named pipe", .. }));
    }
    assert!(matches!(error_of(Path::new("/dev/zero")).root(), Error::NotAFile { kind: "device", .. }));
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    assert!(matches!(error_of(&socket).root(), Error::NotAFile { kind: "socket", .. }));
}

#[test]
fn a_change_while_in_use_is_noticed_but_a_replacement_is_none() {
    let folder = folder();
    let path = model_in(&folder);
    let loader = GGUFLoader::builder().prefetch_size_mb(0).build(&path).expect("valid");
    small_model().set("more", 1u8).write_file(&path).expect("replaced by renaming");
    loader.check_unchanged().expect("the old file is still the one mapped");

    let loader = GGUFLoader::builder().prefetch_size_mb(0).build(&path).expect("valid");
    let length = loader.file_bytes();
    let file = fs::OpenOptions::new().write(true).open(&path).expect("writable");
    file.set_modified(std::time::UNIX_EPOCH).expect("as if it had been overwritten");
    let error = loader.check_unchanged().expect_err("overwritten");
    assert!(matches!(error.root(), Error::Changed { opened, now } if opened == now), "{error}");

    file.set_len(length - 1).expect("truncated");
    let error = loader.check_unchanged().expect_err("truncated");
    assert!(
        matches!(error.root(), Error::Changed { opened, now } if (*opened, *now) == (length, length - 1)),
        "{error}"
    );
}

/// Writes the small model in three parts.
fn split_in(folder: &TempDir) -> Vec<PathBuf> {
    small_model().write_split(folder.path().join("m"), 1).expect("written")
}

fn split_fault(path: &Path) -> SplitFault {
    match error_of(path).root() {
        Error::Split(fault) => fault.clone(),
        other => panic!("not a fault of the parts: {other}"),
    }
}

#[test]
fn any_part_opens_the_whole_model() {
    let folder = folder();
    let paths = split_in(&folder);
    let expected = GGUFLoader::from_bytes(small_model().to_bytes().expect("valid").into()).expect("valid");
    for path in &paths {
        let loader = GGUFLoader::open(path).expect("all parts are there");
        assert!(loader.paths().eq(&paths));
        assert_eq!(loader.path(), Some(paths[0].as_path()));
        assert_eq!(loader.tensors().iter().map(|t| t.part()).collect::<Vec<_>>(), [0, 1, 2]);
        for wanted in expected.tensors() {
            assert_eq!(loader.tensor(wanted.name()).map(|t| t.bytes()), Some(wanted.bytes()));
        }
        for (key, value) in expected.metadata().iter() {
            assert_eq!(loader.metadata().get(key), Some(value));
        }
    }
    let parts = paths.iter().map(|path| fs::read(path).expect("readable").into()).collect();
    assert_eq!(GGUFLoader::from_parts(parts).expect("all parts").tensors().len(), 3);
    assert!(matches!(GGUFLoader::from_parts(vec![]), Err(Error::NoContent)));
}

#[test]
fn missing_parts_are_named() {
    let folder = folder();
    let paths = split_in(&folder);
    fs::remove_file(&paths[1]).expect("removed");
    for path in [&paths[0], &paths[2]] {
        assert_eq!(split_fault(path), SplitFault::Missing { missing: vec![paths[1].clone()], count: 3 });
        assert!(error_of(path).to_string().contains("m-00002-of-00003.gguf"));
    }
}

#[test]
fn a_part_with_another_name_says_which_name_it_needs() {
    let folder = folder();
    let paths = split_in(&folder);
    let renamed = folder.path().join("part-two.gguf");
    fs::copy(&paths[1], &renamed).expect("copied");
    assert_eq!(split_fault(&renamed), SplitFault::Name { no: 1, count: 3 });
    assert!(error_of(&renamed).to_string().contains("-00002-of-00003.gguf"));
}

#[test]
fn parts_in_the_wrong_place_are_noticed() {
    let folder = folder();
    let paths = split_in(&folder);
    fs::copy(&paths[2], &paths[1]).expect("copied");
    let expected = SplitFault::Mismatch { key: "split.no", found: "2".into(), expected: 1 };
    assert_eq!(split_fault(&paths[0]), expected);

    small_model().write_file(&paths[1]).expect("written");
    let expected = SplitFault::Mismatch { key: "split.no", found: "absent".into(), expected: 1 };
    assert_eq!(split_fault(&paths[0]), expected);
}

#[test]
fn parts_of_different_models_are_noticed() {
    let folder = folder();
    let paths = split_in(&folder);
    let part = |count: i32| {
        let mut writer = GGUFWriter::new();
        writer.set("split.no", 1u16).set("split.count", 3u16).set("split.tensors.count", count);
        writer
    };
    part(5).tensor("b.weight", &[1], TensorType::I8, [1]).write_file(&paths[1]).expect("written");
    assert_eq!(split_fault(&paths[0]), SplitFault::Mixed { key: "split.tensors.count".into(), part: 2 });

    part(3).set("general.architecture", "gemma").write_file(&paths[1]).expect("written");
    assert_eq!(split_fault(&paths[0]), SplitFault::Mixed { key: "general.architecture".into(), part: 2 });

    part(3).write_file(&paths[1]).expect("written");
    assert_eq!(split_fault(&paths[0]), SplitFault::TensorCount { found: 2, expected: 3 });

    part(3).tensor("a.weight", &[1], TensorType::I8, [1]).write_file(&paths[1]).expect("written");
    let error = error_of(&paths[0]);
    assert!(matches!(error.root(), Error::Tensor { name, .. } if name == "a.weight"), "{error}");
    assert!(error.to_string().contains("00002-of-00003"), "the part is named: {error}");
}

#[test]
fn one_file_that_announces_a_second_is_refused() {
    let folder = folder();
    let path = folder.path().join("model-split-2-of-1.gguf");
    small_model().set("split.count", 2u16).set("split.no", 0u16).write_file(&path).expect("written");
    assert_eq!(split_fault(&path), SplitFault::Name { no: 0, count: 2 });
}

#[test]
fn every_vocabulary_and_model_opens() {
    let name = "every_vocabulary_and_model_opens";
    for relative in ["vocab", "models"] {
        let Some(folder) = woolly_testdata::folder(name, relative) else { continue };
        let files = gguf_files_below(&folder);
        assert!(!files.is_empty(), "{} holds no model", folder.display());
        for path in files {
            let start = Instant::now();
            let loader = GGUFLoader::open(&path).unwrap_or_else(|error| panic!("{error}"));
            let time = start.elapsed();
            assert!(loader.metadata().get("general.architecture").is_some(), "{}", path.display());
            println!("{time:?} {} bytes {}", loader.file_bytes(), path.display());
            touch_everything(&loader);
        }
    }
}

fn gguf_files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = woolly_testdata::files_ending_in(folder, ".gguf");
    for entry in fs::read_dir(folder).expect("listed").flatten().filter(|entry| entry.path().is_dir()) {
        files.extend(gguf_files_below(&entry.path()));
    }
    files
}
