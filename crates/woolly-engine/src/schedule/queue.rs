//! Who waits, and who is next.
//!
//! Requests belong to flows (an API key, a user). Each flow has a virtual counter of the tokens it was served, divided
//! by its weight; the flow with the smallest is next (Sheng et al., *Fairness in Serving Large Language Models*, OSDI
//! 2024). A flow that comes back is lifted to the smallest counter among the active ones, so that nobody saves up.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{Order, RequestId};

/// What an output token is charged, in prompt tokens: it holds its cache for all steps to come (Sheng et al. use 2).
pub(crate) const OUTPUT_CHARGE: f64 = 2.0;
/// Flows kept without requests before those whose counter means nothing any more are forgotten.
const IDLE_FLOWS: usize = 64;

/// A request that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its number, growing in order of arrival.
    pub id: RequestId,
    /// The flow whose counter it is charged to.
    pub flow: Arc<str>,
    /// Larger is served first.
    pub priority: i32,
    /// When it arrived, since the engine's start.
    pub arrived: Duration,
    /// Its tokens known: the prompt, and what was generated before it was preempted.
    pub known: usize,
    /// Whether its prompt has been charged, as it has when it was preempted.
    pub charged: bool,
}

/// All waiting requests and the counters of their flows.
#[derive(Debug)]
pub struct Queue {
    order: Order,
    flows: HashMap<Arc<str>, Flow>,
    /// Flow and priority of each waiting request, oldest first.
    by_arrival: BTreeMap<RequestId, (Arc<str>, i32)>,
    /// Counter of the flow that became idle last: where the next one starts when all are idle.
    last_counter: f64,
}

#[derive(Debug)]
struct Flow {
    weight: f64,
    counter: f64,
    /// In order of service within the flow.
    waiting: BTreeMap<(Reverse<i32>, RequestId), Waiting>,
    running: usize,
}

impl Flow {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

impl Queue {
    /// Makes an empty queue that serves in the given order.
    pub fn new(order: Order) -> Self {
        Self { order, flows: HashMap::new(), by_arrival: BTreeMap::new(), last_counter: 0.0 }
    }

    /// Returns the order of service.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Returns the number of waiting requests.
    pub fn len(&self) -> usize {
        self.by_arrival.len()
    }

    /// Returns whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_arrival.is_empty()
    }

    /// Returns the oldest waiting request.
    pub fn oldest(&self) -> Option<&Waiting> {
        self.by_arrival.keys().next().and_then(|&id| self.get(id))
    }

    /// Returns a waiting request.
    pub fn get(&self, id: RequestId) -> Option<&Waiting> {
        let (flow, priority) = self.by_arrival.get(&id)?;
        self.flows.get(flow)?.waiting.get(&(Reverse(*priority), id))
    }

    /// Sets the share of a flow relative to others; 1 unless set. The weight must be positive.
    pub fn set_weight(&mut self, flow: &Arc<str>, weight: f64) {
        self.flow(flow).weight = weight;
    }

    /// Returns the share of a flow relative to others.
    pub fn weight(&self, flow: &str) -> f64 {
        self.flows.get(flow).map_or(1.0, |flow| flow.weight)
    }

    /// Returns the tokens a flow was served, by its weight; 0 where all are served in order of arrival.
    pub fn counter(&self, flow: &str) -> f64 {
        match self.order {
            Order::FirstCome => 0.0,
            Order::Fairness => self.flows.get(flow).map_or(0.0, |flow| flow.counter),
        }
    }

    /// Adds a request; one that was preempted gets its old place, since its number is older.
    pub fn add(&mut self, request: Waiting) {
        self.forget_idle_flows();
        let floor = self.least_active_counter().unwrap_or(self.last_counter);
        let flow = self.flow(&request.flow);
        if !flow.is_active() {
            flow.counter = flow.counter.max(floor);
        }
        self.by_arrival.insert(request.id, (request.flow.clone(), request.priority));
        self.flow(&request.flow.clone()).waiting.insert((Reverse(request.priority), request.id), request);
    }

    /// Takes a request out because it runs now, and charges its flow `tokens` of its prompt unless it was charged.
    pub fn start(&mut self, id: RequestId, tokens: usize) -> Option<Waiting> {
        let request = self.remove(id)?;
        let flow = self.flow(&request.flow);
        flow.running += 1;
        if !request.charged {
            flow.counter += tokens as f64 / flow.weight;
        }
        Some(request)
    }

    /// Takes a request out that will not run.
    pub fn remove(&mut self, id: RequestId) -> Option<Waiting> {
        let (name, priority) = self.by_arrival.remove(&id)?;
        let flow = self.flows.get_mut(&name)?;
        let request = flow.waiting.remove(&(Reverse(priority), id));
        self.note_idle(&name);
        request
    }

    /// Charges a flow for one token generated.
    pub fn charge_output(&mut self, flow: &Arc<str>) {
        let flow = self.flow(flow);
        flow.counter += OUTPUT_CHARGE / flow.weight;
    }

    /// Notes that a running request of the flow ended or was preempted; call [`add`](Self::add) first for the latter.
    pub fn stop(&mut self, name: &Arc<str>) {
        let flow = self.flow(name);
        flow.running = flow.running.saturating_sub(1);
        self.note_idle(name);
    }

    /// Returns the requests in the order in which they are to be served from now on; each one taken is assumed to be
    /// charged before the next is chosen. Whoever waited longer than `bound` comes first.
    pub fn in_order(&self, now: Duration, bound: Option<Duration>) -> InOrder<'_> {
        InOrder { queue: self, now, bound, taken: Vec::new(), charged: HashMap::new() }
    }

    fn flow(&mut self, name: &Arc<str>) -> &mut Flow {
        self.flows.entry(name.clone()).or_insert_with(|| Flow {
            weight: 1.0,
            counter: 0.0,
            waiting: BTreeMap::new(),
            running: 0,
        })
    }

    fn note_idle(&mut self, name: &str) {
        if let Some(flow) = self.flows.get(name).filter(|flow| !flow.is_active()) {
            self.last_counter = flow.counter;
        }
    }

    fn least_active_counter(&self) -> Option<f64> {
        self.flows.values().filter(|flow| flow.is_active()).map(|flow| flow.counter).reduce(f64::min)
    }

    /// An idle flow at or below the smallest active counter would be lifted anyway: nothing is lost with it.
    fn forget_idle_flows(&mut self) {
        let idle = self.flows.len().saturating_sub(self.by_arrival.len());
        if idle < IDLE_FLOWS || idle < self.flows.len() / 2 {
            return;
        }
        let floor = self.least_active_counter().unwrap_or(self.last_counter);
        self.flows.retain(|_, flow| flow.is_active() || flow.counter > floor || flow.weight != 1.0);
    }
}

/// The waiting requests in order of service; see [`Queue::in_order`].
#[derive(Debug)]
pub struct InOrder<'a> {
    queue: &'a Queue,
    now: Duration,
    bound: Option<Duration>,
    taken: Vec<RequestId>,
    charged: HashMap<Arc<str>, f64>,
}

impl<'a> Iterator for InOrder<'a> {
    type Item = &'a Waiting;

    fn next(&mut self) -> Option<&'a Waiting> {
        let next = self.overdue().or_else(|| self.fairest())?;
        self.taken.push(next.id);
        if !next.charged {
            let weight = self.queue.weight(&next.flow);
            *self.charged.entry(next.flow.clone()).or_default() += next.known as f64 / weight;
        }
        Some(next)
    }
}

impl<'a> InOrder<'a> {
    fn overdue(&self) -> Option<&'a Waiting> {
        let bound = self.bound?;
        let id = self.queue.by_arrival.keys().find(|id| !self.taken.contains(id))?;
        let oldest = self.queue.get(*id)?;
        (self.now.saturating_sub(oldest.arrived) > bound).then_some(oldest)
    }

    fn fairest(&self) -> Option<&'a Waiting> {
        let first = |flow: &'a Flow| flow.waiting.values().find(|request| !self.taken.contains(&request.id));
        let candidates = self.queue.flows.values().filter_map(first);
        candidates.min_by(|a, b| {
            let by_counter = self.counter(&a.flow).total_cmp(&self.counter(&b.flow));
            b.priority.cmp(&a.priority).then(by_counter).then(a.id.cmp(&b.id))
        })
    }

    fn counter(&self, flow: &Arc<str>) -> f64 {
        match self.queue.order {
            Order::FirstCome => 0.0,
            Order::Fairness => self.queue.counter(flow) + self.charged.get(flow).copied().unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(id: u64, flow: &str, known: usize) -> Waiting {
        let arrived = Duration::from_millis(id);
        Waiting { id: RequestId(id), flow: flow.into(), priority: 0, arrived, known, charged: false }
    }

    fn order(queue: &Queue) -> Vec<u64> {
        queue.in_order(Duration::ZERO, None).map(|w| w.id.0).collect()
    }

    #[test]
    fn flows_take_turns_by_the_tokens_they_cost() {
        let mut queue = Queue::new(Order::Fairness);
        (0..4).for_each(|id| queue.add(waiting(id, "greedy", 100)));
        queue.add(waiting(4, "modest", 100));
        queue.add(waiting(5, "small", 40));
        queue.add(waiting(6, "small", 40));
        queue.add(waiting(7, "small", 40));
        // Counters after each: greedy 100; modest 100; small 40, 80, 120; then greedy alone.
        assert_eq!(order(&queue), [0, 4, 5, 6, 7, 1, 2, 3]);
        let mut first_come = Queue::new(Order::FirstCome);
        [3, 1, 2].into_iter().for_each(|id| first_come.add(waiting(id, &format!("f{id}"), 10)));
        assert_eq!(order(&first_come), [1, 2, 3]);
    }

    #[test]
    fn weights_divide_the_charge() {
        let mut queue = Queue::new(Order::Fairness);
        queue.set_weight(&"paid".into(), 3.0);
        (0..8).for_each(|id| queue.add(waiting(id, if id % 2 == 0 { "free" } else { "paid" }, 30)));
        let served = order(&queue);
        // 30 tokens count 30 for one and 10 for the other.
        assert_eq!(served[..5], [0, 1, 3, 5, 2], "{served:?}");
    }

    #[test]
    fn who_was_idle_has_nothing_saved_up() {
        let mut queue = Queue::new(Order::Fairness);
        queue.add(waiting(0, "old", 1000));
        queue.start(RequestId(0), 1000);
        queue.add(waiting(1, "old", 10));
        queue.add(waiting(2, "new", 10));
        queue.add(waiting(3, "new", 10));
        assert_eq!(order(&queue), [1, 2, 3], "both stand at 1000 when the new one arrives");
        assert_eq!(queue.counter("new"), 1000.0);
    }

    #[test]
    fn priorities_come_first_and_nobody_waits_beyond_the_bound() {
        let mut queue = Queue::new(Order::Fairness);
        queue.add(waiting(1, "a", 10));
        (2..5).for_each(|id| queue.add(Waiting { priority: 5, ..waiting(id, "b", 10) }));
        assert_eq!(order(&queue), [2, 3, 4, 1]);
        let bounded = queue.in_order(Duration::from_millis(500), Some(Duration::from_millis(400)));
        assert_eq!(bounded.map(|w| w.id.0).collect::<Vec<_>>(), [1, 2, 3, 4], "all are overdue: oldest first");
        let some = queue.in_order(Duration::from_millis(402), Some(Duration::from_millis(400)));
        assert_eq!(some.map(|w| w.id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn preempted_requests_get_their_place_back_and_are_not_charged_twice() {
        let mut queue = Queue::new(Order::Fairness);
        (0..3).for_each(|id| queue.add(waiting(id, "a", 10)));
        queue.start(RequestId(0), 10);
        let counter = queue.counter("a");
        queue.add(Waiting { charged: true, known: 25, ..waiting(0, "a", 10) });
        queue.stop(&"a".into());
        assert_eq!(order(&queue), [0, 1, 2]);
        queue.start(RequestId(0), 25);
        assert_eq!(queue.counter("a"), counter);
    }

    #[test]
    fn flows_that_are_gone_are_forgotten() {
        let mut queue = Queue::new(Order::Fairness);
        for id in 0..10_000 {
            queue.add(waiting(id, &format!("user{id}"), 10));
            queue.start(RequestId(id), 10);
            queue.stop(&format!("user{id}").into());
        }
        assert!(queue.flows.len() < 4 * IDLE_FLOWS, "{} flows", queue.flows.len());
        assert!(queue.is_empty());
    }
}
