//! The planner; see [`plan`].

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::{CostModel, Joining, Load, Order, Policy, Queue, RequestId, Waiting, split};

/// A running request, as the planner sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Its number.
    pub id: RequestId,
    /// Its flow.
    pub flow: Arc<str>,
    /// Larger is served first and preempted last.
    pub priority: i32,
    /// Tokens known.
    pub known: usize,
    /// Tokens whose keys and values are in the cache.
    pub computed: usize,
    /// Cache blocks that its next tokens need beyond those it has.
    pub needed: usize,
    /// Blocks that become free when it is preempted, as no other running request uses them.
    pub owned: usize,
}

/// What the cache has of a waiting request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// Leading tokens that need not be computed.
    pub tokens: usize,
    /// Blocks needed for all its tokens and one more, beyond what running requests use anyway.
    pub needed: usize,
    /// Whether another request is about to compute a beginning that this one shares: it starts once that is there.
    pub pending: bool,
}

/// Everything a plan depends on.
pub struct State<'a> {
    /// Time since the engine's start.
    pub now: Duration,
    /// The running requests, in any order.
    pub running: &'a [Active],
    /// The waiting requests.
    pub queue: &'a Queue,
    /// Cache blocks that are free or can be made free without touching a running request.
    pub free_blocks: usize,
    /// All cache blocks.
    pub total_blocks: usize,
    /// Looks up what the cache has of a waiting request, when those in the list start in the same step.
    pub cached: &'a dyn Fn(&Waiting, &[RequestId]) -> Cached,
    /// What steps cost.
    pub cost: &'a CostModel,
}

impl std::fmt::Debug for State<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("now", &self.now)
            .field("running", &self.running)
            .field("waiting", &self.queue.len())
            .field("free_blocks", &self.free_blocks)
            .finish_non_exhaustive()
    }
}

/// The next tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub id: RequestId,
    /// How many of its known tokens are computed.
    pub rows: usize,
}

/// What the next step does, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Running requests that give back their blocks and wait again, as a running one needs them more.
    pub preempt: Vec<RequestId>,
    /// Waiting requests that start, each with all blocks of its prompt and of one further token.
    pub admit: Vec<RequestId>,
    /// What is computed: sequences in their answer first.
    pub work: Vec<Work>,
    /// What the step computes, for the cost model.
    pub load: Load,
    /// With no work: when to ask again, since the engine's start, if nothing arrives before.
    pub wait_until: Option<Duration>,
}

/// Plans one step.
///
/// Running requests stand in an order: priority, then the counter of their flow, then arrival. They are served from its
/// front; when blocks run out, they are preempted from its back, so that the first one always proceeds. Nothing is
/// admitted in a step that preempts, and only what fits with its whole prompt is admitted, so that admission never
/// costs a running request its blocks.
pub fn plan(policy: &Policy, state: &State<'_>) -> Plan {
    if let Some(until) = gathering(policy, state) {
        return Plan { wait_until: Some(until), ..Plan::default() };
    }
    let mut draft = Draft::new(policy, state);
    draft.decode();
    draft.admit();
    draft.prefill();
    draft.plan
}

/// Returns how long an idle engine still waits for company.
fn gathering(policy: &Policy, state: &State<'_>) -> Option<Duration> {
    let oldest = state.queue.oldest()?;
    let alone = state.running.is_empty() && state.queue.len() < policy.gather.min_requests.min(policy.max_sequences);
    let until = oldest.arrived + policy.gather.max_wait;
    (alone && until > state.now).then_some(until)
}

/// A sequence that has prompt tokens to compute in this step.
struct Prefill<'a> {
    id: RequestId,
    flow: &'a Arc<str>,
    start: usize,
    missing: usize,
}

struct Draft<'a> {
    policy: &'a Policy,
    state: &'a State<'a>,
    /// Running requests from the one served first to the one preempted first.
    running: Vec<&'a Active>,
    /// How many of them are left; those behind were preempted.
    alive: usize,
    free: usize,
    prefills: Vec<Prefill<'a>>,
    plan: Plan,
}

impl<'a> Draft<'a> {
    fn new(policy: &'a Policy, state: &'a State<'a>) -> Self {
        let mut running: Vec<&Active> = state.running.iter().collect();
        running.sort_by(|a, b| standing(state.queue, a, b));
        let alive = running.len();
        let plan = Plan::default();
        Self { policy, state, running, alive, free: state.free_blocks, prefills: Vec::new(), plan }
    }

    /// Gives every running sequence in its answer its token, and notes those that are still in their prompt.
    fn decode(&mut self) {
        let mut next = 0;
        while next < self.alive {
            let active = self.running[next];
            let missing = active.known - active.computed;
            if !self.make_room(active.needed, next) {
                break;
            }
            self.free -= active.needed;
            if missing == 1 && self.plan.work.len() < self.policy.max_rows {
                self.plan.work.push(Work { id: active.id, rows: 1 });
                self.plan.load.add(active.computed, 1, true);
            } else if missing > 1 {
                let Active { id, flow, computed: start, .. } = active;
                self.prefills.push(Prefill { id: *id, flow, start: *start, missing });
            }
            next += 1;
        }
    }

    /// Preempts from the back until `needed` blocks are free; returns whether request `index` itself survived.
    fn make_room(&mut self, needed: usize, index: usize) -> bool {
        while self.free < needed && self.alive > index {
            self.alive -= 1;
            let victim = self.running[self.alive];
            self.free += victim.owned;
            self.plan.preempt.push(victim.id);
        }
        self.alive > index
    }

    /// Lets waiting requests start while there are blocks, places and prompt tokens for them.
    fn admit(&mut self) {
        // Nobody can join a batch later: it takes all it has places for, however long its prompts take.
        let whole = self.policy.joining == Joining::WhenIdle;
        let may_join = !whole || self.state.running.is_empty();
        if !self.plan.preempt.is_empty() || !may_join {
            return;
        }
        let budget = self.budget();
        let mut waiting = self.state.queue.in_order(self.state.now, self.policy.max_queue);
        let has_place = |draft: &Self| draft.alive + draft.plan.admit.len() < draft.policy.max_sequences;
        while has_place(self) && (whole || self.has_room_for_another(budget)) {
            let Some(request) = waiting.next() else { break };
            let cached = (self.state.cached)(request, &self.plan.admit);
            if !cached.pending && !self.start(request, cached) {
                break;
            }
        }
    }

    /// Whether one more prompt would get anything of the step's `budget`.
    fn has_room_for_another(&self, budget: usize) -> bool {
        match self.state.queue.order() {
            Order::FirstCome => self.prefills.iter().map(|p| p.missing).sum::<usize>() < budget,
            Order::Fairness => self.prefills.len() < budget / self.policy.tile,
        }
    }

    /// Lets a request start if there are blocks for it.
    fn start(&mut self, request: &'a Waiting, cached: Cached) -> bool {
        // The last token of a sequence that fills the cache is never computed.
        let needed = cached.needed.min(self.state.total_blocks);
        if needed > self.free {
            return false;
        }
        self.free -= needed;
        self.plan.admit.push(request.id);
        // The last token is always computed: its logits are wanted.
        let start = cached.tokens.min(request.known - 1);
        let missing = request.known - start;
        self.prefills.push(Prefill { id: request.id, flow: &request.flow, start, missing });
        true
    }

    /// Returns how many prompt tokens the step may have.
    fn budget(&self) -> usize {
        let Policy { tile, max_chunk, max_rows, step, prefill_step, .. } = self.policy;
        let target = if self.plan.load.decode_rows > 0 { step } else { prefill_step };
        let depth = self.prefills.iter().map(|p| p.start).max().unwrap_or(0);
        let fitting = self.state.cost.tokens_within(target.as_secs_f64() * 1000.0, &self.plan.load, depth);
        let room = max_rows.saturating_sub(self.plan.work.len()).min(*max_chunk);
        (fitting / tile * tile).max(*tile).min(room)
    }

    fn prefill(&mut self) {
        let budget = self.budget();
        let given = match self.state.queue.order() {
            Order::FirstCome => split::in_order(budget, self.policy.tile, &self.demands(|_| true).1),
            Order::Fairness => self.divide_fairly(budget),
        };
        for (prefill, rows) in self.prefills.iter().zip(given).filter(|(_, rows)| *rows > 0) {
            self.plan.work.push(Work { id: prefill.id, rows });
            self.plan.load.add(prefill.start, rows, false);
        }
    }

    /// Divides among the flows by weight, and within a flow so that short prompts pass long ones.
    fn divide_fairly(&self, budget: usize) -> Vec<usize> {
        let mut flows: Vec<&Arc<str>> = Vec::new();
        for prefill in &self.prefills {
            if !flows.contains(&prefill.flow) {
                flows.push(prefill.flow);
            }
        }
        let tile = self.policy.tile;
        let demand = |flow: &&Arc<str>| self.demands(|p| p.flow == *flow).1.iter().sum();
        let demands: Vec<usize> = flows.iter().map(demand).collect();
        let weights: Vec<f64> = flows.iter().map(|flow| self.state.queue.weight(flow)).collect();
        let mut given = vec![0; self.prefills.len()];
        for (flow, part) in flows.into_iter().zip(split::share(budget, tile, &demands, &weights)) {
            let (places, demands) = self.demands(|p| p.flow == flow);
            for (place, rows) in places.into_iter().zip(split::short_then_in_order(part, tile, &demands)) {
                given[place] = rows;
            }
        }
        given
    }

    /// Returns the places and the missing tokens of some of the prefills.
    fn demands(&self, of: impl Fn(&Prefill<'_>) -> bool) -> (Vec<usize>, Vec<usize>) {
        self.prefills.iter().enumerate().filter(|(_, p)| of(p)).map(|(place, p)| (place, p.missing)).unzip()
    }
}

/// Who is served before whom, and preempted after.
fn standing(queue: &Queue, a: &Active, b: &Active) -> Ordering {
    let by_counter = || queue.counter(&a.flow).total_cmp(&queue.counter(&b.flow));
    b.priority.cmp(&a.priority).then_with(by_counter).then(a.id.cmp(&b.id))
}
