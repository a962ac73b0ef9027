// Which result belongs to the picture that a video shows. Its time on the wire (RTP, 1/90000 s) begins at a random number
// that nobody tells; but the times between pictures are never the same twice, so few of them give it away.

const MAX_RESULTS = 120;
const RANGE = 2 ** 32;
// both sides round
const SLACK_TICKS = 3;
// a result is never drawn over a picture that was taken so much earlier or later
const NEAR_TICKS = 9000;
const ENOUGH_VOTES = 4;
const MAX_MISSES = 30;

/** The distance between two times that start again after the largest one. */
function apart(a, b) {
  const distance = Math.abs(a - b) % RANGE;
  return Math.min(distance, RANGE - distance);
}

export class VideoSync {
  /** isBetween: the video has pictures between those that have results, and each shows the nearest. */
  constructor(isBetween = false) {
    this.nearTicks = isBetween ? NEAR_TICKS : SLACK_TICKS;
    this.results = [];
    this.forget();
  }

  forget() {
    this.offset = null;
    this.votes = [];
    this.numMissed = 0;
  }

  /** Keep a result of the feed. */
  take(result) {
    if (!Number.isFinite(result.ticks)) return;
    this.results.push(result);
    if (this.results.length > MAX_RESULTS) this.results.shift();
  }

  /** The result of the picture with this time; null where it is not there (yet), undefined where times say nothing. */
  resultOf(rtpTime) {
    if (!Number.isFinite(rtpTime)) return undefined;
    if (this.offset === null) this.vote(rtpTime);
    if (this.offset === null) return undefined;
    const [found] = this.results
      .map((result) => [result, apart((result.ticks + this.offset) % RANGE, rtpTime)])
      .reduce((a, b) => (b[1] < a[1] ? b : a), [null, this.nearTicks + 1]);
    this.numMissed = found ? 0 : this.numMissed + 1;
    // another encoder, and so another beginning
    if (this.numMissed > MAX_MISSES) this.forget();
    return found;
  }

  /** Every result that is there might be the one; only the true beginning is found again with the next pictures. */
  vote(rtpTime) {
    for (const { ticks } of this.results) {
      const offset = (((rtpTime - ticks) % RANGE) + RANGE) % RANGE;
      const known = this.votes.find((vote) => apart(vote.offset, offset) <= SLACK_TICKS);
      if (known) known.count += 1;
      else this.votes.push({ offset, count: 1 });
    }
    this.votes.sort((a, b) => b.count - a.count);
    const [first, second] = this.votes;
    if (first?.count >= ENOUGH_VOTES && first.count >= 2 * (second?.count || 0)) {
      this.offset = first.offset;
      this.votes = [];
    }
    this.votes.splice(20 * MAX_RESULTS);
  }
}
