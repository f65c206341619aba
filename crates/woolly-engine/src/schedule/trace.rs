//! The planner run over traces: against vLLM's rules, against its own promises, and for fairness and delay.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use woolly_tensor::BLOCK_TOKENS;

use super::{Active, Cached, CostModel, Gather, Joining, Order, Plan, Policy, Queue, RequestId, State, Waiting, plan};
use crate::Rng;

/// A request of a trace.
#[derive(Clone, Debug)]
struct Spec {
    flow: Arc<str>,
    priority: i32,
    prompt: usize,
    output: usize,
}

/// The engine's part in counts alone: a step lasts what the cost model says.
struct Simulation {
    policy: Policy,
    cost: CostModel,
    total: usize,
    free: usize,
    now: Duration,
    queue: Queue,
    running: Vec<Active>,
    specs: BTreeMap<RequestId, Spec>,
    generated: BTreeMap<RequestId, usize>,
    /// Step in which each request got its first token, and its last.
    first: BTreeMap<RequestId, usize>,
    finished: BTreeMap<RequestId, usize>,
    step: usize,
}

impl Simulation {
    fn new(policy: Policy, order: Order, total: usize) -> Self {
        Self {
            policy,
            cost: CostModel::fixed(0.0, 1.0, 1.0),
            total,
            free: total,
            now: Duration::ZERO,
            queue: Queue::new(order),
            running: Vec::new(),
            specs: BTreeMap::new(),
            generated: BTreeMap::new(),
            first: BTreeMap::new(),
            finished: BTreeMap::new(),
            step: 0,
        }
    }

    fn submit(&mut self, id: u64, spec: &Spec) {
        let id = RequestId(id);
        let Spec { flow, priority, prompt: known, .. } = spec.clone();
        self.specs.insert(id, spec.clone());
        self.queue.add(Waiting { id, flow, priority, arrived: self.now, known, charged: false });
    }

    /// Plans a step and does what the plan says.
    fn advance(&mut self) -> Plan {
        let cached = |waiting: &Waiting, _: &[RequestId]| {
            let needed = (waiting.known + 1).div_ceil(BLOCK_TOKENS);
            Cached { needed, ..Cached::default() }
        };
        let state = State {
            now: self.now,
            running: &self.running,
            queue: &self.queue,
            free_blocks: self.free,
            total_blocks: self.total,
            cached: &cached,
            cost: &self.cost,
        };
        let plan = plan(&self.policy, &state);
        plan.preempt.iter().for_each(|&id| self.preempt(id));
        plan.admit.iter().for_each(|&id| self.admit(id));
        plan.work.iter().for_each(|work| self.work(work.id, work.rows));
        self.now += Duration::from_secs_f64(self.cost.predict(&plan.load) / 1000.0);
        if let Some(until) = plan.wait_until {
            self.now = self.now.max(until);
        }
        self.step += 1;
        plan
    }

    fn preempt(&mut self, id: RequestId) {
        let place = self.running.iter().position(|active| active.id == id).expect("only running ones are preempted");
        let Active { flow, priority, known, owned, .. } = self.running.remove(place);
        self.free += owned;
        self.queue.add(Waiting { id, flow: flow.clone(), priority, arrived: Duration::ZERO, known, charged: true });
        self.queue.stop(&flow);
    }

    fn admit(&mut self, id: RequestId) {
        let known = self.queue.get(id).expect("only waiting ones are admitted").known;
        let Waiting { flow, priority, .. } = self.queue.start(id, known).expect("it waits");
        let held = (known + 1).div_ceil(BLOCK_TOKENS).min(self.total);
        self.free = self.free.checked_sub(held).expect("admission never takes more than there is");
        self.running.push(Active { id, flow, priority, known, computed: 0, needed: 0, owned: held });
    }

    fn work(&mut self, id: RequestId, rows: usize) {
        let active = self.running.iter_mut().find(|active| active.id == id).expect("only running ones work");
        active.computed += rows;
        assert!(active.computed <= active.known, "{id:?} computes more than is known");
        let grown = active.computed.div_ceil(BLOCK_TOKENS).max(active.owned);
        self.free = self.free.checked_sub(grown - active.owned).expect("a step never takes more than there is");
        active.owned = grown;
        active.needed = (active.computed + 1).div_ceil(BLOCK_TOKENS).saturating_sub(grown);
        if active.computed == active.known {
            self.token(id);
        }
    }

    fn token(&mut self, id: RequestId) {
        let count = self.generated.entry(id).or_default();
        *count += 1;
        self.first.entry(id).or_insert(self.step);
        let active = self.running.iter_mut().find(|active| active.id == id).expect("it runs");
        active.known += 1;
        self.queue.charge_output(&active.flow.clone());
        if *count == self.specs[&id].output {
            let place = self.running.iter().position(|active| active.id == id).expect("it runs");
            let Active { flow, owned, .. } = self.running.remove(place);
            self.free += owned;
            self.queue.stop(&flow);
            self.finished.insert(id, self.step);
        }
    }
}

/// Scheduling as in vLLM's v1 scheduler (`vllm/v1/core/sched/scheduler.py`, policy FCFS), written from its description:
/// running requests in order, then waiting ones; when blocks run out the tail of the running is preempted, loses what
/// was computed and goes to the front of the queue; nothing is admitted in a step that preempted. As with its option
/// that a whole sequence must fit, blocks for prompt and next token are taken on admission.
struct Vllm {
    token_budget: usize,
    max_sequences: usize,
    free: usize,
    waiting: VecDeque<VllmRequest>,
    running: Vec<VllmRequest>,
}

#[derive(Clone, Debug)]
struct VllmRequest {
    id: u64,
    known: usize,
    computed: usize,
    held: usize,
    outputs_left: usize,
}

/// Preempted, admitted, and computed (number, tokens) in one step.
type Record = (Vec<u64>, Vec<u64>, Vec<(u64, usize)>);

impl Vllm {
    fn step(&mut self) -> Record {
        let (mut preempted, mut admitted, mut scheduled) = (Vec::new(), Vec::new(), Vec::new());
        let mut budget = self.token_budget;
        let mut index = 0;
        'running: while index < self.running.len() && budget > 0 {
            let tokens = (self.running[index].known - self.running[index].computed).min(budget);
            loop {
                let request = &mut self.running[index];
                let missing = (request.computed + tokens).div_ceil(BLOCK_TOKENS).saturating_sub(request.held);
                if missing <= self.free {
                    self.free -= missing;
                    request.held += missing;
                    break;
                }
                let mut victim = self.running.pop().expect("not empty");
                self.free += std::mem::take(&mut victim.held);
                victim.computed = 0;
                preempted.push(victim.id);
                self.waiting.push_front(victim);
                if index == self.running.len() {
                    break 'running;
                }
            }
            scheduled.push((self.running[index].id, tokens));
            budget -= tokens;
            index += 1;
        }
        while preempted.is_empty() && budget > 0 && self.running.len() < self.max_sequences {
            let Some(request) = self.waiting.front_mut() else { break };
            let needed = (request.known + 1).div_ceil(BLOCK_TOKENS);
            if needed > self.free {
                break;
            }
            self.free -= needed;
            request.held = needed;
            let tokens = request.known.min(budget);
            budget -= tokens;
            admitted.push(request.id);
            scheduled.push((request.id, tokens));
            self.running.extend(self.waiting.pop_front());
        }
        self.update(&scheduled);
        scheduled.sort_unstable();
        (preempted, admitted, scheduled)
    }

    fn update(&mut self, scheduled: &[(u64, usize)]) {
        for &(id, tokens) in scheduled {
            let request = self.running.iter_mut().find(|request| request.id == id).expect("scheduled ones run");
            request.computed += tokens;
            if request.computed == request.known {
                request.known += 1;
                request.outputs_left -= 1;
            }
        }
        let (done, running) = self.running.drain(..).partition(|request| request.outputs_left == 0);
        self.running = running;
        self.free += done.iter().map(|request: &VllmRequest| request.held).sum::<usize>();
    }
}

fn below(rng: &mut Rng, n: usize) -> usize {
    (rng.unit() * n as f64) as usize
}

#[test]
fn first_come_is_vllm_step_by_step() {
    let mut preemptions = 0;
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let (total, budget) = (8 + below(&mut rng, 40), 40 + below(&mut rng, 200));
        let max_sequences = 1 + below(&mut rng, 12);
        let policy = Policy {
            max_sequences,
            step: Duration::from_millis(budget as u64),
            prefill_step: Duration::from_millis(budget as u64),
            tile: 1,
            max_chunk: 4096,
            max_rows: 4096,
            max_queue: None,
            ..Policy::default()
        };
        let mut ours = Simulation::new(policy, Order::FirstCome, total);
        let mut theirs =
            Vllm { token_budget: budget, max_sequences, free: total, waiting: VecDeque::new(), running: Vec::new() };
        let mut next = 0;
        for step in 0..400 {
            while next < 40 && below(&mut rng, 4) == 0 {
                let largest = total * BLOCK_TOKENS - 2;
                let prompt = 1 + below(&mut rng, largest.min(300));
                let output = 1 + below(&mut rng, (largest - prompt).clamp(1, 120));
                let spec = Spec { flow: "".into(), priority: 0, prompt, output };
                ours.submit(next, &spec);
                theirs.waiting.push_back(VllmRequest {
                    id: next,
                    known: prompt,
                    computed: 0,
                    held: 0,
                    outputs_left: output,
                });
                next += 1;
            }
            let plan = ours.advance();
            let mut work: Vec<(u64, usize)> = plan.work.iter().map(|work| (work.id.0, work.rows)).collect();
            work.sort_unstable();
            let ids = |ids: &[RequestId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
            preemptions += plan.preempt.len();
            assert_eq!((ids(&plan.preempt), ids(&plan.admit), work), theirs.step(), "seed {seed}, step {step}");
        }
    }
    assert!(preemptions > 100, "only {preemptions} preemptions: the traces test little");
}

/// Checks one plan against what every plan promises.
fn check_promises(policy: &Policy, before: &[Active], plan: &Plan, cost: &CostModel) {
    assert!(plan.preempt.is_empty() || plan.admit.is_empty(), "admitted in a step that preempts");
    let rows: usize = plan.work.iter().map(|work| work.rows).sum();
    assert!(rows <= policy.max_rows && rows - plan.load.decode_rows <= policy.max_chunk);
    for active in before.iter().filter(|active| active.known - active.computed == 1) {
        let kept = !plan.preempt.contains(&active.id);
        assert_eq!(plan.work.iter().any(|work| work.id == active.id && work.rows == 1), kept, "{active:?}");
    }
    let prefill = plan.load.prefill_tokens;
    let limit = if plan.load.decode_rows > 0 { policy.step } else { policy.prefill_step };
    let late = cost.predict(&plan.load) > limit.as_secs_f64() * 1000.0 + 1e-6;
    assert!(!late || prefill <= policy.tile, "{:?} takes longer than {limit:?}", plan.load);
}

#[test]
fn every_plan_keeps_its_promises_and_everyone_is_served() {
    let mut preemptions = 0;
    for seed in 0..150 {
        let mut rng = Rng::new(1000 + seed);
        let order = if seed % 3 == 0 { Order::FirstCome } else { Order::Fairness };
        let total = 12 + below(&mut rng, 60);
        let joining = if seed % 5 == 0 { Joining::WhenIdle } else { Joining::AnyStep };
        let gather = Gather { max_wait: Duration::from_millis(50), min_requests: below(&mut rng, 4) };
        let step = Duration::from_millis(20 + below(&mut rng, 200) as u64);
        let policy = Policy {
            joining,
            max_sequences: 1 + below(&mut rng, 16),
            gather,
            step,
            prefill_step: step * 2,
            ..Policy::default()
        };
        let policy = policy.within(16 + below(&mut rng, 512), 64);
        let mut simulation = Simulation::new(policy.clone(), order, total);
        let count = 30;
        let (mut next, mut steps) = (0, 0);
        while simulation.finished.len() < count {
            while next < count && below(&mut rng, 3) == 0 {
                let flow = format!("flow{}", below(&mut rng, 3)).into();
                let prompt = 1 + below(&mut rng, 350);
                let output = 1 + below(&mut rng, (total * BLOCK_TOKENS - prompt).min(60));
                let priority = below(&mut rng, 3) as i32;
                simulation.submit(next as u64, &Spec { flow, priority, prompt, output });
                next += 1;
            }
            let before = simulation.running.clone();
            let plan = simulation.advance();
            check_promises(&policy, &before, &plan, &simulation.cost);
            let held: usize = simulation.running.iter().map(|active| active.owned).sum();
            assert_eq!(held + simulation.free, total, "seed {seed}: blocks leak");
            preemptions += plan.preempt.len();
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: {} of {count} finished", simulation.finished.len());
        }
        assert_eq!(simulation.free, total);
    }
    assert!(preemptions > 100, "only {preemptions} preemptions");
}

#[test]
fn backlogged_flows_get_equal_service_whatever_they_ask_for() {
    let policy = Policy { max_sequences: 4, max_queue: None, ..Policy::default() };
    let mut simulation = Simulation::new(policy, Order::Fairness, 400);
    // One asks a lot at once, the other little; both always have someone waiting.
    for id in 0..400 {
        let (flow, prompt) = if id % 2 == 0 { ("large", 700) } else { ("small", 70) };
        simulation.submit(id, &Spec { flow: flow.into(), priority: 0, prompt, output: 20 });
    }
    while simulation.finished.len() < 80 {
        simulation.advance();
    }
    let (large, small) = (simulation.queue.counter("large"), simulation.queue.counter("small"));
    // Never further apart than what the four that run can cost (Sheng et al., theorem 4.4).
    assert!((large - small).abs() <= 4.0 * (700.0 + 40.0), "large {large}, small {small}");
    assert!(large > 5000.0);
}

#[test]
fn a_short_prompt_waits_at_most_two_steps_behind_a_long_one() {
    for flow in ["same", "other"] {
        let mut simulation = Simulation::new(Policy::default(), Order::Fairness, 400);
        let spec = |flow: &str, prompt| Spec { flow: flow.into(), priority: 0, prompt, output: 50 };
        simulation.submit(0, &spec("same", 8192));
        (0..3).for_each(|_| drop(simulation.advance()));
        simulation.submit(1, &spec(flow, 60));
        let arrival = simulation.step;
        (0..2).for_each(|_| drop(simulation.advance()));
        let first = simulation.first.get(&RequestId(1)).copied();
        assert!(first.is_some_and(|step| step < arrival + 2), "flow {flow}: {first:?}, arrived at {arrival}");
        assert!(!simulation.first.contains_key(&RequestId(0)), "the long prompt is still being computed");
    }
}

#[test]
fn idle_engines_gather_and_busy_ones_do_not() {
    let gather = Gather { max_wait: Duration::from_millis(50), min_requests: 3 };
    let mut simulation = Simulation::new(Policy { gather, ..Policy::default() }, Order::Fairness, 100);
    let spec = Spec { flow: "".into(), priority: 0, prompt: 10, output: 5 };
    simulation.submit(0, &spec);
    simulation.submit(1, &spec);
    let plan = simulation.advance();
    assert_eq!((plan.wait_until, plan.work.len()), (Some(Duration::from_millis(50)), 0));
    assert_eq!(simulation.advance().work.len(), 2, "after the window they start");
    simulation.submit(2, &spec);
    assert_eq!(simulation.advance().work.len(), 3, "nobody waits while others run");
    let mut full = Simulation::new(Policy { gather, ..Policy::default() }, Order::Fairness, 100);
    (0..3).for_each(|id| full.submit(id, &spec));
    assert_eq!(full.advance().work.len(), 3, "enough requests end the wait");
}

/// Lengths vary as they do in traffic (exponential, up to four times the mean), and steps cost what was measured for 1.1
/// billion four-bit weights on two cores without matrix units: much of a step is the same whoever has a place in it.
#[test]
fn on_mixed_lengths_continuous_batches_take_less_than_three_quarters_of_the_time_of_static_ones() {
    let time = |joining| {
        let (step, prefill_step) = (Duration::from_millis(500), Duration::from_millis(1250));
        let policy = Policy { joining, max_sequences: 16, step, prefill_step, max_queue: None, ..Policy::default() };
        let mut simulation = Simulation::new(policy, Order::FirstCome, 1000);
        simulation.cost = CostModel::fixed(55.0, 3.5, 7.0);
        let mut rng = Rng::new(1);
        let mut length = |mean: f64| 1 + (mean * (-(1.0 - rng.unit()).ln()).min(4.0)) as usize;
        for id in 0..96 {
            let (prompt, output) = (length(32.0), length(64.0));
            simulation.submit(id, &Spec { flow: "".into(), priority: 0, prompt, output });
        }
        while simulation.finished.len() < 96 {
            simulation.advance();
        }
        simulation.now.as_secs_f64()
    };
    let (continuous, all_at_once) = (time(Joining::AnyStep), time(Joining::WhenIdle));
    assert!(all_at_once > 1.34 * continuous, "{continuous:.1} s continuously, {all_at_once:.1} s in static batches");
}

#[test]
fn static_batches_admit_nobody_until_they_are_done() {
    let policy = Policy { joining: Joining::WhenIdle, max_sequences: 2, ..Policy::default() };
    let mut simulation = Simulation::new(policy, Order::FirstCome, 100);
    for (id, output) in [(0, 2), (1, 6), (2, 1)] {
        simulation.submit(id, &Spec { flow: "".into(), priority: 0, prompt: 10, output });
    }
    while simulation.finished.len() < 3 {
        simulation.advance();
    }
    assert_eq!(simulation.finished.values().copied().collect::<Vec<_>>(), [1, 5, 6]);
}
