// @ts-check
// Loads images before they are needed, so that they are on the screen in the frame after the key
// press.

/** @import { ImageAddress, LoadedImage, Loaded, Question } from "../interface.d.ts" */

import { check, isPassing, isSignedOut } from "./api.js";
import { words } from "./words.js";

const HARD_PIXELS = 128;

/**
 * Loads and decodes the images of a task, in the order given. Throws when the server cannot be
 * reached, so that a lost connection is never taken for a damaged image.
 *
 * @param {ImageAddress[]} images
 */
export function loadImages(images) {
  return Promise.all(images.map(loadImage));
}

/**
 * Loads the images of a task or label.
 *
 * @template {Question} T
 * @param {T} task
 * @returns {Promise<Loaded<T>>}
 */
export async function loadTask(task) {
  return { ...task, loaded: await loadImages(task.images) };
}

/**
 * @param {ImageAddress} address
 * @param {number} place
 * @param {ImageAddress[]} images
 * @returns {Promise<LoadedImage>}
 */
async function loadImage({ image_id, url }, place, images) {
  const element = new Image();
  element.alt = images.length === 1
    ? words("task.image")
    : words("task.image_number", { number: place + 1 });
  element.draggable = false;
  element.decoding = "sync"; // in the first frame of its task, not in a later one
  if (!url) return { image_id, element, broken: true }; // it was reported
  element.src = url;
  try {
    await element.decode();
  } catch {
    await check(url).catch((error) => {
      if (isPassing(error) || isSignedOut(error)) throw error;
    });
    return { image_id, element, broken: true };
  }
  element.classList.toggle("crisp", element.naturalWidth <= HARD_PIXELS); // keep hard pixels hard
  return { image_id, element, broken: false };
}
