//! Who finds whose tokens, and what is copied for it.

use super::*;

#[test]
fn a_beginning_is_shared_to_the_token() {
    let long = tokens(1, 100);
    let cases: [(&str, &[u32], usize); 5] = [
        ("another prompt", &tokens(2, 80), 0),
        ("the same", &long, 99),
        ("up to a block", &[&long[..64], &tokens(3, 9)[..]].concat(), 64),
        ("into a full block", &[&long[..84], &tokens(3, 9)[..]].concat(), 84),
        ("into the last, partial block", &[&long[..98], &tokens(3, 9)[..]].concat(), 98),
    ];
    for (what, prompt, expected) in cases {
        let mut rig = Rig::new(plain(16));
        let (first, _) = rig.run(&long);
        rig.manager.release(first.seq);
        let (second, cached) = rig.run(prompt);
        assert_eq!(cached, expected, "{what}");
        rig.manager.release(second.seq);
        // Nothing that was found was lost by finding it.
        let (third, cached) = rig.run(&long);
        assert_eq!(cached, 99, "{what}");
        rig.verify(&third);
    }
}

#[test]
fn running_sequences_share_full_blocks_and_diverge_by_copying() {
    let mut rig = Rig::new(plain(16));
    let prompt = tokens(1, 70);
    let (mut first, _) = rig.run(&prompt);
    let (mut second, cached) = rig.run(&[&prompt[..50], &[7]].concat());
    assert_eq!(cached, 50);
    let tables = [&first, &second].map(|running| rig.manager.table(&running.seq).to_vec());
    assert_eq!(tables[0][0], tables[1][0], "a full block is shared");
    assert_ne!(tables[0][1], tables[1][1], "a block that is written to is not");
    assert_eq!(rig.manager.stats().copies, 1);
    rig.compute(&mut first, &[1, 2, 3]).expect("room");
    rig.compute(&mut second, &[4, 5, 6]).expect("room");
    rig.verify(&first);
}

#[test]
fn a_session_goes_on_in_its_own_last_block_without_a_copy() {
    let mut rig = Rig::new(plain(4));
    let mut prompt = tokens(1, 20);
    for turn in 0..4 {
        let (running, cached) = rig.run(&prompt);
        assert_eq!(cached, if turn == 0 { 0 } else { prompt.len() - 20 }, "turn {turn}");
        rig.manager.release(running.seq);
        prompt.extend(tokens(2 + turn, 20));
    }
    assert_eq!((rig.manager.stats().copies, rig.manager.stats().cached_blocks), (0, 3));
}

#[test]
fn equal_prompts_that_ran_side_by_side_end_up_in_the_same_blocks() {
    let mut rig = Rig::new(plain(16));
    let prompt = tokens(1, 96);
    let [(mut a, _), (mut b, _)] = [rig.begin(&prompt, 0), rig.begin(&prompt, 0)];
    for part in prompt.chunks(24) {
        rig.compute(&mut a, part).expect("room");
        rig.compute(&mut b, part).expect("room");
    }
    assert_eq!(rig.manager.table(&a.seq), rig.manager.table(&b.seq));
    let stats = rig.manager.stats();
    assert_eq!((stats.merged, stats.used_blocks), (3, 3));
}

#[test]
fn another_salt_finds_nothing() {
    let mut rig = Rig::new(plain(16));
    let prompt = tokens(1, 70);
    let (running, _) = rig.run(&prompt);
    rig.manager.release(running.seq);
    assert_eq!([0, 1, 1 << 32].map(|salt| rig.manager.cached_tokens(&prompt, salt)), [69, 0, 0]);
}

#[test]
fn a_hash_alone_is_never_believed() {
    let mut rig = Rig::new(plain(32));
    rig.manager.index.set_hash(|_, _| 42);
    let prompts = [tokens(1, 100), tokens(2, 100), [&tokens(1, 32)[..], &tokens(3, 60)].concat()];
    for prompt in prompts.iter().cycle().take(9) {
        let (running, _) = rig.run(prompt);
        rig.manager.release(running.seq);
    }
}

#[test]
fn the_same_tokens_after_another_beginning_are_other_contents() {
    let mut rig = Rig::new(plain(32));
    rig.manager.index.set_hash(|_, ids| hash::words(hash::EMPTY, ids));
    let (running, _) = rig.run(&tokens(1, 96));
    rig.manager.release(running.seq);
    for prompt in [&tokens(1, 96)[32..], &[&tokens(2, 32)[..], &tokens(1, 96)[32..]].concat()] {
        // Contents are compared whenever something is computed.
        let (running, cached) = rig.run(prompt);
        assert_eq!(cached, 0);
        rig.manager.release(running.seq);
    }
}

#[test]
fn what_a_failed_step_left_is_not_found() {
    let mut rig = Rig::new(plain(8));
    let prompt = tokens(1, 40);
    let (running, _) = rig.run(&prompt);
    rig.manager.discard(running.seq);
    // The full block was found before the failure and may have been used since; the rest is gone.
    assert_eq!(rig.manager.cached_tokens(&prompt, 0), 32);
}

#[test]
fn guesses_that_were_rejected_are_taken_back() {
    let mut rig = Rig::new(plain(8));
    let (mut running, _) = rig.run(&tokens(1, 30));
    rig.compute(&mut running, &[1, 2, 3, 4, 5, 6]).expect("room");
    rig.manager.truncate(&running.seq, 31);
    running.ids.truncate(31);
    rig.compute(&mut running, &[9, 9]).expect("room");
    rig.verify(&running);
    // The block that was full once could be found by others, so that it was copied.
    assert_eq!(rig.manager.stats().copies, 1);
}

#[test]
fn the_hit_rate_counts_tokens() {
    let mut rig = Rig::new(plain(8));
    assert_eq!(rig.manager.stats().cache_hit_rate(), 0.0);
    let (running, _) = rig.run(&tokens(1, 64));
    rig.manager.release(running.seq);
    let (running, _) = rig.run(&[&tokens(1, 64)[..], &tokens(2, 64)].concat());
    let stats = rig.manager.stats();
    assert_eq!((stats.prompt_tokens, stats.cached_tokens, stats.hits, stats.misses), (192, 64, 2, 4));
    assert_eq!(stats.cache_hit_rate(), 1.0 / 3.0);
    rig.manager.release(running.seq);
}
