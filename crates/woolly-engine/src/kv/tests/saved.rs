//! Sessions in files: what is restored, and what is refused.

use proptest::prelude::*;

use super::*;

fn fingerprint() -> Fingerprint {
    Fingerprint::new().with(b"model").with(b"f32")
}

fn saved(ids: &[u32]) -> Vec<u8> {
    let mut rig = Rig::new(plain(8));
    let (running, _) = rig.run(ids);
    let mut file = Vec::new();
    rig.store.save(&mut rig.manager, &mut rig.tape, &running.seq, fingerprint(), &mut file).expect("a vector");
    file
}

fn restore(rig: &mut Rig, file: &[u8]) -> Result<Restored, SessionError> {
    let restored = rig.store.restore(&mut rig.manager, &mut rig.tape, 0, fingerprint(), &mut &file[..]);
    rig.manager.audit().expect("sound");
    assert_eq!(rig.manager.stats().used_blocks, 0);
    restored
}

#[test]
fn a_session_goes_on_in_another_process() {
    let ids = tokens(1, 100);
    let mut rig = Rig::new(plain(8));
    let restored = restore(&mut rig, &saved(&ids)).expect("fits");
    assert_eq!(restored, Restored { ids: ids.clone(), cached_tokens: 100 });
    // Every value is compared when the next tokens are computed.
    let (_, cached) = rig.run(&[&ids[..], &[1, 2]].concat());
    assert_eq!(cached, 100, "the last block as well, of which there are four tokens");
}

#[test]
fn nothing_that_a_block_held_before_gets_into_the_file() {
    let ids = tokens(1, 100);
    let mut used = Rig::new(plain(4));
    let (other, _) = used.run(&tokens(2, 128));
    used.manager.discard(other.seq);
    let (running, _) = used.run(&ids);
    let mut file = Vec::new();
    used.store.save(&mut used.manager, &mut used.tape, &running.seq, fingerprint(), &mut file).expect("a vector");
    assert!(file == saved(&ids), "the file depends on what was in the cache");
    // Nor how others go on where the saved sequence ends.
    used.manager.release(running.seq);
    let (part, cached) = used.begin(&[&ids[..90], &[0]].concat(), 0);
    assert_eq!(cached, 90);
    let mut file = Vec::new();
    used.store.save(&mut used.manager, &mut used.tape, &part.seq, fingerprint(), &mut file).expect("a vector");
    assert!(file == saved(&ids[..90]), "the file depends on how others go on");
}

#[test]
fn a_session_that_is_there_in_part_takes_no_more_room() {
    let ids = tokens(1, 128);
    let file = saved(&ids);
    let mut rig = Rig::new(plain(5));
    let (part, _) = rig.run(&ids[..50]);
    rig.manager.release(part.seq);
    assert_eq!(restore(&mut rig, &file).expect("fits").cached_tokens, 128);
    let (running, cached) = rig.run(&[&ids[..], &[7]].concat());
    assert_eq!(cached, 128);
    rig.verify(&running);
}

#[test]
fn a_preempted_sequence_can_be_saved() {
    let mut rig = Rig::new(limited(KvOptions { spill_bytes: 1 << 20, ..plain(8) }, 4));
    let (held, _) = rig.run(&tokens(1, 96));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&tokens(2, 128));
    rig.manager.release(other.seq);
    let mut file = Vec::new();
    rig.store.save(&mut rig.manager, &mut rig.tape, &held.seq, fingerprint(), &mut file).expect("room");
    assert_eq!(file, saved(&tokens(1, 96)));
}

#[test]
fn what_does_not_belong_here_is_refused_with_the_reason() {
    let file = saved(&tokens(1, 70));
    let edited = |at: usize| {
        let mut file = file.clone();
        file[at] ^= 1;
        file
    };
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", vec![], "no saved session"),
        ("another file", b"GGUF and something behind".to_vec(), "no saved session"),
        ("a later version", edited(8), "has format 3"),
        ("the header", edited(40), "checksum of the header"),
        ("a token", edited(64 + 9), "checksum of the tokens"),
        ("the first block", edited(64 + 70 * 4 + 16 + 100), "checksum of a block"),
        ("the last byte", edited(file.len() - 1), "checksum of a block"),
        ("cut off", file[..file.len() - 1].to_vec(), "ends early"),
    ];
    for (what, file, reason) in cases {
        let mut rig = Rig::new(plain(8));
        let error = restore(&mut rig, &file).expect_err(what).to_string();
        assert!(error.contains(reason), "{what}: {error}");
    }
}

#[test]
fn another_model_and_too_small_a_cache_are_refused() {
    let file = saved(&tokens(1, 70));
    let mut rig = Rig::new(plain(8));
    let other = Fingerprint::new().with(b"model").with(b"f16");
    let error =
        rig.store.restore(&mut rig.manager, &mut rig.tape, 0, other, &mut &file[..]).expect_err("another cache");
    assert!(matches!(error, SessionError::OtherModel { .. }), "{error}");
    let mut small = Rig::new(plain(2));
    let error = restore(&mut small, &file).expect_err("70 tokens need three blocks");
    assert_eq!(error.to_string(), "the session has 70 tokens, but the cache has room for 64");
}

#[test]
fn running_sequences_keep_their_room() {
    let file = saved(&tokens(1, 96));
    let mut rig = Rig::new(plain(4));
    let (running, _) = rig.run(&tokens(2, 64));
    let error =
        rig.store.restore(&mut rig.manager, &mut rig.tape, 0, fingerprint(), &mut &file[..]).expect_err("no room");
    assert!(matches!(error, SessionError::NoSpace(_)), "{error}");
    rig.verify(&running);
    rig.manager.audit().expect("sound");
}

#[test]
fn fingerprints_tell_parts_and_their_borders_apart() {
    let of = |parts: &[&[u8]]| parts.iter().fold(Fingerprint::new(), |all, part| all.with(part));
    assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
    assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic(mut file in prop::collection::vec(any::<u8>(), 0..200), keep in 0_usize..120) {
        let good = saved(&tokens(1, 40));
        let keep = keep.min(file.len());
        file[..keep].copy_from_slice(&good[..keep]);
        let mut rig = Rig::new(plain(4));
        prop_assert!(restore(&mut rig, &file).is_err());
    }

    #[test]
    fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let mut file = saved(&tokens(1, 70));
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(restore(&mut Rig::new(plain(8)), &file).is_err());
    }
}
