// Types of the front end: the objects of the HTTP interface, and what the page makes of them.
// Only the type checker reads this file; browsers never load it.

import type { FullSize } from "./static/full_size.js";

export type Kind = "binary" | "ranking" | "comparison";
export type Verdict = "good" | "bad" | "skip" | "unsafe";
export type InputMode = "key" | "mouse" | "touch";

/** Rank from 1, the best, on; null is "can't judge". */
export type Rank = number | null;

// What the server sends

export interface Settings {
  needs_password: boolean;
  guideline_version: string;
  /** Of guidelines in other languages, by language. */
  guideline_versions: Partial<Record<string, string>>;
  /** Marks on what is wrong in an image that raters find bad or report. */
  marks: "off" | "optional" | "required";
  /** Names for what is wrong at a mark. */
  mark_aspects: string[];
}

/** A text, or its forms by plural category, such as `one` and `other`. */
export type Word = string | Record<string, string>;

/** The words of the page by language. */
export interface PageWords {
  /** Language of raters who have not chosen one; null is their browser's. */
  preferred: string | null;
  languages: Record<string, Record<string, Word>>;
  reasons: Record<ReasonsQuestion, OfferedReason[]>;
}

/** The question why an image is bad or reported, or one or several images are skipped. */
export type ReasonsQuestion = "bad" | "skip" | "skip_several" | "unsafe";

export interface OfferedReason {
  /** As labels keep it. */
  stored: string;
  /** By language. */
  words: Partial<Record<string, string>>;
  /** Whether it reports images of a task with several: which ones is asked then. */
  reports: boolean;
}

/** The rater who is signed in. */
export interface Rater {
  rater_id: string;
  name: string;
  role: "rater" | "admin";
  /** Whether all training items are answered. */
  trained: boolean;
}

export interface ImageAddress {
  image_id: string;
  /** Null when the image was reported: it is shown to nobody. */
  url: string | null;
}

/** What a comparison asks. */
export interface AxisQuestion {
  axis: "overall" | "alignment" | "appeal";
  /** The words of the axis. */
  html: string;
}

export interface Question {
  kind: Kind;
  /** Empty where raters are not told it. */
  prompt: string;
  images: ImageAddress[];
  /** Of a comparison. */
  question?: AxisQuestion;
}

export interface Task extends Question {
  task_id: string;
  /** The rater had put it aside. */
  was_aside?: boolean;
}

export interface TrainingItem extends Question {
  item_id: string;
}

export interface TrainingFeedback {
  correct: boolean;
  explanation: string;
  /** Training items that the rater has not answered yet. */
  left: number;
}

interface Remarks {
  /** Why the task was skipped, or an image reported. */
  reason?: string | null;
  comment?: string | null;
  marking?: undefined;
}

/** Where an image is wrong; edges in fractions of the original image. */
export interface Mark {
  kind: "point" | "box";
  aspect: string;
  x0: number;
  y0: number;
  /** Null for a point. */
  x1?: number | null;
  y1?: number | null;
  severity?: 1 | 2 | 3 | null;
  /** Places, from 0, of the prompt's words that are wrong or missing. */
  word_indexes?: number[];
  comment?: string | null;
}

/** Marks on the way, and the answer that waits for them while the rater is marking. */
export interface HalfMarked {
  answer: BinaryAnswer | null;
  marks: Mark[];
}

export interface BinaryAnswer extends Remarks {
  kind: "binary";
  verdict: Verdict;
  /** Empty where there is nothing to mark; missing where that was not asked. */
  marks?: Mark[] | null;
  ranks?: undefined;
  outcome?: undefined;
}

export interface RankingAnswer extends Remarks {
  kind: "ranking";
  /** By image id; an image without a rank is not in it. */
  ranks: Record<string, Rank>;
  /** Ids of the images that nobody should see. */
  unsafe?: string[];
  marks?: undefined;
  verdict?: undefined;
  outcome?: undefined;
}

export interface ComparisonAnswer extends Remarks {
  kind: "comparison";
  outcome: "preferred" | "tie" | "both_bad" | "skip" | "unsafe";
  /** Id of the better image. */
  preferred?: string | null;
  /** Ids of the images that nobody should see. */
  unsafe?: string[];
  marks?: undefined;
  verdict?: undefined;
  ranks?: undefined;
}

/** A half-made answer. */
export interface Draft {
  /** By image id. */
  ranks?: Record<string, Rank>;
  comment?: string;
  marking?: HalfMarked;
  marks?: undefined;
  verdict?: undefined;
  outcome?: undefined;
}

export type Answer = BinaryAnswer | RankingAnswer | ComparisonAnswer;

/** An earlier answer of this rater, with its task. */
export interface Label extends Task {
  answer: Answer;
  submitted_at: string;
  revision: number;
}

/** A task that the rater has put aside. */
export interface AsideTask extends Task {
  aside_at: string;
}

/** Progress of the labeling, in labels. */
export interface Progress {
  /** Labels of this rater. */
  mine: number;
  /** Labels of all raters. */
  done: number;
  total: number;
  /** Tasks that the page should hold now at most, the one on the screen included. */
  hold: number;
}

/** Answer to a claim: a task, or null and the reason why there is none. */
export type Claimed =
  & { progress: Progress; withdrawn?: string[] }
  & ({ task: Task; code?: undefined } | { task: null; code: string });

export interface Timing {
  time_on_task_ms: number;
  active_ms: number;
  input_mode: InputMode;
}

export interface Submission extends Partial<Timing> {
  submission_id: string;
  task_id: string;
  answer: Answer;
  /** Of the page. */
  language?: string;
}

/** Body and answer of each call, by its method and its path below /api/v1/. */
export interface Routes {
  "GET settings": { body: undefined; answer: Settings };
  "GET words": { body: undefined; answer: PageWords };
  "GET me": { body: undefined; answer: Rater };
  "POST login": { body: { rater: string; password?: string }; answer: Rater };
  "POST logout": { body: Record<string, never>; answer: null };
  "POST claim": {
    body: { except: string[]; wanted?: string; aside?: string };
    answer: Claimed;
  };
  "POST aside": { body: { task_id: string }; answer: null };
  "GET aside": { body: undefined; answer: { tasks: AsideTask[] } };
  "POST leases": { body: { task_id: string }; answer: { lease_expires_at: string } };
  "POST release": { body: { task_id: string }; answer: null };
  "POST submissions": { body: Submission; answer: { label_id: string; revision: number } };
  "POST undo": {
    body: Record<string, never>;
    answer: { task: Task | null; answer: Answer | null };
  };
  "GET training": { body: undefined; answer: { items: TrainingItem[]; done: boolean } };
  "POST training": { body: { item_id: string; answer: Answer }; answer: TrainingFeedback };
  [history: `GET history?${string}`]: {
    body: undefined;
    answer: { labels: Label[]; older: number | null };
  };
  [progress: `GET progress?${string}`]: {
    body: undefined;
    answer: Progress & { withdrawn?: string[] };
  };
}

export type Method = "GET" | "POST";

/** The paths that can be called with a method. */
export type Path<M extends Method> = {
  [R in keyof Routes]: R extends `${M} ${infer P}` ? P : never;
}[keyof Routes];

type RouteOf<M extends Method, P extends string> = `${M} ${P}` extends keyof Routes
  ? Routes[`${M} ${P}`]
  : never;

export type BodyOf<M extends Method, P extends string> = RouteOf<M, P>["body"];
export type AnswerOf<M extends Method, P extends string> = RouteOf<M, P>["answer"];

// What the page makes of it

export interface LoadedImage {
  image_id: string;
  element: HTMLImageElement;
  /** Whether there is nothing to be seen. */
  broken: boolean;
}

/** A task or label with its images. */
export type Loaded<T extends Question> = T & { loaded: LoadedImage[] };

/** A task that the page holds, ready to be shown. */
export interface HeldTask extends Loaded<Task> {
  /** A half-made answer, or the one that was undone. */
  draft?: Answer | Draft;
}

/** What a rater can answer on the screen: a task, a training question or an earlier label. */
export interface Item {
  kind: Kind;
  prompt: string;
  loaded: LoadedImage[];
  /** Of a comparison. */
  question?: AxisQuestion;
  /** Missing for a training question. */
  task_id?: string;
  /** An earlier or half-made answer. */
  earlier?: Answer | Draft;
  /** A line above the prompt. */
  banner?: string;
  /** Whether an earlier answer is changed: it may be left as it was. */
  editing?: boolean;
  /** Gets the rater's answer. */
  take(answer: Answer, timing: Timing): void;
}

/** An answer that waits in the browser's storage. */
export interface OutboxEntry {
  submission: Submission;
  prompt: string;
  /** Milliseconds since 1970. */
  at: number;
  /** Why the server did not accept it. */
  refused?: string;
}

/** The task that was on the screen before a reload, and what was done of it. */
export interface Unfinished {
  task_id: string;
  draft?: Answer | Draft;
}

/** The part of the page that shows tasks of a kind and takes the answers. */
export interface OnPage {
  show(images: LoadedImage[], earlier?: Answer | Draft, question?: AxisQuestion): void;
  /** False when the key stands for nothing there. */
  key(event: KeyboardEvent): boolean;
  /** Shows the images at full size. */
  look(): void;
}

/** What a part of the page may ask of the screen around it. */
export interface Around {
  /** Takes the rater's answer. */
  answer: GiveAnswer;
  ask: AskReason;
  /** Has screen readers speak. */
  say(text: string): void;
  /** Keeps a half-made answer. */
  changed(half: RankingAnswer): void;
}

/** What the page knows of a kind of task. */
export interface KindOnPage {
  Part: new (root: HTMLElement, fullSize: FullSize, around: Around) => OnPage;
  /** The answer in words, without reason and comment. */
  said(answer: Answer, images: ImageAddress[]): string;
  /** An earlier answer to begin with, where it is not the same. */
  openAgain?(answer: Answer): Answer;
  /** Whether an action of a key is a part of the answer, where some are not. */
  isAnswer?(action: string): boolean;
  /** The kind whose part shows these images, where it may be another. */
  shownAs?(images: LoadedImage[]): Kind;
}

export type GiveAnswer = (answer: Answer, mode: InputMode) => void;

/** Gets the reason, and the ids of the images that are reported with it. */
export type ReasonChosen = (reason: string, unsafe?: string[]) => void;

/** Asks for a reason; with `images`, also which of them are unsafe. */
export type AskReason = (
  question: ReasonsQuestion,
  chosen: ReasonChosen,
  images?: LoadedImage[],
) => void;
