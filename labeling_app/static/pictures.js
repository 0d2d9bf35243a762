// Loads pictures before they are needed, so that they are on the screen in the frame after the key press.

import { check, isPassing, isSignedOut } from "./api.js";

const HARD_PIXELS = 128;

/**
 * Loads and decodes the pictures of a task. Resolves to `[{image_id, element, broken}]` in the order given;
 * throws when the server cannot be reached, so that a lost connection is never taken for a damaged picture.
 */
export function loadPictures(images) {
  return Promise.all(images.map(loadPicture));
}

async function loadPicture({ image_id, url }, place, images) {
  const element = new Image();
  element.alt = images.length === 1 ? "The picture to judge" : `Picture ${place + 1}`;
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
  element.classList.toggle("crisp", element.naturalWidth <= HARD_PIXELS); // small ones keep their hard pixels
  return { image_id, element, broken: false };
}
