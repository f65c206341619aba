//! Each step of the ladder alone, and their order.

use super::*;

/// Prompts of two blocks each.
fn pair(family: u32) -> Vec<u32> {
    tokens(family, 64)
}

#[test]
fn the_least_recently_used_goes_first_and_beginnings_last() {
    let mut rig = Rig::new(plain(6));
    for family in [1, 2, 3, 1] {
        let (running, _) = rig.run(&pair(family));
        rig.manager.release(running.seq);
    }
    // The fourth run needed a block for its last token and took the end of the second prompt for it; when its end turned
    // out to be there already, one block became free. The fifth run takes that one and the rest of the second prompt.
    let (running, _) = rig.run(&pair(4));
    assert_eq!([1, 2, 3].map(|family| rig.manager.cached_tokens(&pair(family), 0)), [63, 0, 63]);
    assert_eq!(rig.manager.stats().evictions, 2);
    rig.manager.release(running.seq);
}

#[test]
fn the_least_frequently_used_goes_first_until_popularity_has_aged() {
    let popular = |policy| {
        let mut rig = Rig::new(KvOptions { eviction: policy, ..plain(4) });
        for family in [1, 1, 1, 1, 2, 3, 4, 5] {
            let (running, _) = rig.run(&tokens(family, 32));
            rig.manager.release(running.seq);
        }
        let kept = rig.manager.cached_tokens(&tokens(1, 32), 0);
        for family in 10..40 {
            let (running, _) = rig.run(&tokens(family, 32));
            rig.manager.release(running.seq);
        }
        (kept, rig.manager.cached_tokens(&tokens(1, 32), 0))
    };
    assert_eq!(popular(EvictionPolicy::LFU), (31, 0));
    assert_eq!(popular(EvictionPolicy::LRU), (0, 0));
}

#[test]
fn running_sequences_are_never_touched() {
    let mut rig = Rig::new(plain(3));
    let (mut first, _) = rig.run(&pair(1));
    let (mut second, _) = rig.begin(&pair(2), 0);
    let refused = rig.compute(&mut second, &pair(2)).expect_err("one block is left");
    assert_eq!(refused, NoSpace { needed: 2, available: 1, total: 3 });
    assert_eq!(refused.to_string(), "2 cache blocks of 32 tokens are needed, but running sequences leave only 1 of 3");
    rig.compute(&mut second, &pair(2)[..20]).expect("one block is enough");
    rig.compute(&mut first, &[1]).expect_err("none is left");
    rig.manager.release(second.seq);
    rig.compute(&mut first, &[1]).expect("room");
}

#[test]
fn cold_blocks_go_before_those_of_preempted_sequences() {
    let mut rig = Rig::new(KvOptions { spill_bytes: 1 << 20, ..plain(4) });
    let (cold, _) = rig.run(&tokens(1, 32));
    rig.manager.release(cold.seq);
    let (held, _) = rig.run(&pair(2));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (running, _) = rig.run(&pair(3));
    let stats = rig.manager.stats();
    assert_eq!((stats.evictions, stats.spilled, stats.dropped), (1, 0, 0));
    assert_eq!(rig.manager.computed(&held.seq), 64);
    rig.manager.release(running.seq);
}

/// Preempts a sequence of four blocks on a device of five, runs another of three, and lets the first go on.
fn squeeze(options: KvOptions) -> (KvStats, usize, Rig, Running) {
    let mut rig = Rig::new(options);
    let (mut held, _) = rig.run(&tokens(1, 128));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&tokens(2, 96));
    let stats = rig.manager.stats();
    assert!(stats.memory_bytes() <= rig.manager.options.max_bytes);
    rig.manager.release(other.seq);
    let kept = rig.manager.computed(&held.seq);
    rig.compute(&mut held, &[5]).expect("room");
    (stats, kept, rig, held)
}

#[test]
fn compression_keeps_preempted_tokens_to_within_its_precision() {
    let options = limited(KvOptions { packed_bytes: packed_bytes(), ..plain(8) }, 5);
    let (stats, kept, mut rig, held) = squeeze(options);
    assert!(stats.packed >= 2 && stats.spilled == 0 && stats.dropped == 0, "{stats:?}");
    assert_eq!((stats.packed_bytes, kept), (stats.packed as usize * packed_bytes().expect("floats"), 128));
    // What lost precision is for the sequence that holds it, not for others.
    let exact = 128 - 32 * stats.packed as usize;
    assert!(rig.manager.cached_tokens(&[&held.ids[..], &[0, 0]].concat(), 0) <= exact);
    // Nor is what comes after it: it would take room in vain.
    rig.manager.release(held.seq);
    assert_eq!(rig.manager.stats().cached_blocks, 0);
}

#[test]
fn what_lost_precision_is_not_found_even_when_it_is_continued() {
    let mut rig = Rig::new(limited(KvOptions { packed_bytes: packed_bytes(), ..plain(8) }, 3));
    let ids = tokens(1, 96);
    let (mut held, _) = rig.run(&ids[..64]);
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&pair(2));
    assert_eq!(rig.manager.stats().packed, 2);
    rig.manager.discard(other.seq);
    rig.manager.truncate(&held.seq, 20);
    rig.compute(&mut held, &ids[20..]).expect("room");
    assert_eq!(rig.manager.cached_tokens(&[&ids[..], &[0]].concat(), 0), 0);
    rig.manager.release(held.seq);
    assert_eq!(rig.manager.stats().cached_blocks, 0);
}

#[test]
fn a_full_block_that_is_cut_while_its_sequence_waits_counts_as_partly_filled() {
    let mut rig = Rig::new(limited(KvOptions { packed_bytes: packed_bytes(), ..plain(8) }, 3));
    let (mut held, _) = rig.run(&pair(1));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&pair(2));
    assert_eq!(rig.manager.stats().packed, 2);
    rig.manager.discard(other.seq);
    // What lost precision is nobody else's, so that it is cut in place.
    rig.compute(&mut held, &[1]).expect("room");
    rig.manager.preempt(&held.seq, Preemption::Hold);
    rig.manager.truncate(&held.seq, 40);
    rig.manager.audit().expect("sound");
}

#[test]
fn the_file_keeps_preempted_tokens_exactly_and_others_find_them() {
    let options = limited(KvOptions { spill_bytes: 1 << 20, ..plain(8) }, 5);
    let (stats, kept, rig, mut held) = squeeze(options);
    assert_eq!((stats.packed, stats.spilled, stats.dropped, kept), (0, 2, 0, 128));
    held.ids.extend([0, 0]);
    assert_eq!(rig.manager.cached_tokens(&held.ids, 0), 128);
}

#[test]
fn a_prompt_finds_blocks_in_the_file() {
    let mut rig = Rig::new(limited(KvOptions { spill_bytes: 1 << 20, ..plain(8) }, 4));
    let (held, _) = rig.run(&tokens(1, 80));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&tokens(2, 96));
    assert_eq!(rig.manager.stats().spilled, 2);
    rig.manager.release(other.seq);
    let (found, cached) = rig.run(&[&tokens(1, 64)[..], &[1, 2, 3]].concat());
    assert_eq!((cached, rig.manager.stats().restored), (64, 2));
    rig.verify(&found);
}

#[test]
fn the_end_is_computed_again_where_nothing_else_is_left() {
    let (stats, kept, ..) = squeeze(limited(plain(8), 5));
    assert_eq!((stats.packed, stats.spilled, stats.dropped, kept), (0, 0, 2, 64));
}

#[test]
fn compressed_blocks_go_to_the_file_when_memory_for_them_runs_out() {
    let options = KvOptions { packed_bytes: packed_bytes(), spill_bytes: 1 << 20, ..plain(8) };
    let mut rig = Rig::new(limited(options, 3));
    let (mut held, _) = rig.run(&tokens(1, 96));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.run(&tokens(2, 96));
    let stats = rig.manager.stats();
    assert_eq!((stats.packed, stats.spilled, stats.dropped, stats.packed_bytes), (3, 3, 0, 0));
    rig.manager.release(other.seq);
    rig.manager.truncate(&held.seq, 95);
    rig.compute(&mut held, &[1]).expect("room");
    rig.verify(&held);
}

#[test]
fn preemption_that_recomputes_leaves_the_blocks_to_be_found_again() {
    let mut rig = Rig::new(plain(8));
    let (running, _) = rig.run(&pair(1));
    rig.manager.preempt(&running.seq, Preemption::Recompute);
    assert_eq!(rig.manager.computed(&running.seq), 0);
    assert_eq!(rig.manager.cached_tokens(&pair(1), 0), 63);
}

#[test]
fn the_limit_shrinks_and_grows_while_running() {
    let mut rig = Rig::new(plain(8));
    let (mut running, _) = rig.run(&pair(1));
    let (cold, _) = rig.run(&tokens(2, 96));
    rig.manager.release(cold.seq);
    let overhead = rig.manager.stats().overhead_bytes;
    rig.manager.resize(overhead + 3 * BLOCK_BYTES).expect("two blocks run");
    rig.carry_out();
    let stats = rig.manager.stats();
    assert_eq!((stats.device_bytes, stats.used_blocks, stats.cached_blocks), (3 * BLOCK_BYTES, 2, 1));
    let refused = rig.manager.resize(overhead + BLOCK_BYTES).expect_err("two blocks run");
    assert_eq!((refused.needed, refused.total), (2, 1));
    rig.compute(&mut running, &tokens(3, 64)).expect_err("room for one block only");
    rig.manager.resize(1 << 30).expect("more");
    rig.compute(&mut running, &tokens(3, 64)).expect("room");
    rig.verify(&running);
}

#[test]
fn a_limit_below_one_block_is_refused() {
    let refused = BlockManager::new(KvOptions { max_bytes: 100, ..plain(8) }).expect_err("no room");
    assert_eq!(refused, NoSpace { needed: 1, available: 0, total: 0 });
}

#[test]
fn a_file_that_cannot_be_written_costs_tokens_but_nothing_else() {
    let mut rig = Rig::new(limited(KvOptions { spill_bytes: 1 << 20, ..plain(8) }, 4));
    rig.store = KvStore::new(CacheType::F32, BLOCK_BYTES, std::path::Path::new("/nonexistent"));
    let (mut held, _) = rig.run(&tokens(1, 96));
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (mut other, _) = rig.begin(&tokens(2, 70), 0);
    rig.manager.reserve(&other.seq, 70).expect("room");
    let error = rig.store.carry_out(&mut rig.manager, &mut rig.tape).expect_err("no such folder");
    assert!(matches!(error, StoreError::Spill { what: "create", .. }), "{error}");
    assert!(rig.manager.computed(&held.seq) < 96);
    rig.compute(&mut other, &tokens(2, 70)).expect("room");
    rig.manager.release(other.seq);
    rig.compute(&mut held, &[1]).expect("room");
}

#[test]
fn a_block_with_values_that_are_not_finite_is_not_compressed_but_computed_again() {
    let mut rig = Rig::new(limited(KvOptions { packed_bytes: packed_bytes(), ..plain(8) }, 3));
    let (held, _) = rig.run(&tokens(1, 64));
    let block = rig.manager.table(&held.seq)[0];
    rig.tape.write(block, 5, [f32::NAN; WIDTH]);
    rig.manager.preempt(&held.seq, Preemption::Hold);
    let (other, _) = rig.begin(&tokens(2, 64), 0);
    rig.manager.reserve(&other.seq, 64).expect("room");
    let error = rig.store.carry_out(&mut rig.manager, &mut rig.tape).expect_err("not finite");
    assert!(matches!(error, StoreError::NotFinite { .. }), "{error}");
    assert_eq!(rig.manager.computed(&held.seq), 0);
    rig.manager.audit().expect("sound");
    rig.manager.release(other.seq);
}
