"""The annotation pipeline (Sec. 3, App. F)."""

# shown by `ureca annotate --help` and by `help(PipelineSettings.paper)`; in one
# paragraph, which the help does not wrap, of at most 77 columns
PAPER_DIFFERENCES = """\
What --paper still does otherwise than the paper or the authors' code:
  subject            paper or authors' code       here, and why
  -----------------  ---------------------------  -----------------------------
  short caption's    Sec. 3: the parent, blurred  Sec. 3; the code's view is
  context picture    but for the target; code:    context_blur="main_object"
                     the main object, sharp
  size of pictures   that of the photo            448 to 1792 pixels, so that
                                                  contours hide no small part
  main objects       Table 7, which speaks of a   a variant of Table 7 without
                     larger object around them    the larger object
  Table 7, examples  the authors'                 our own eight
  look-alikes, dino  code: DINO v1 at 0.8, crops  DINOv2 (Sec. 3) at 0.8, crops
                     with blurred background      on a plain ground; the value
                                                  is not calibrated for them:
                                                  see ureca look-alikes
  without --dino     -                            color, texture, shape, size
  still alike after  published as they are        listed as unresolved, and not
  one refinement                                  exported
  verification       the authors' prompt          our own, which also drops a
                                                  caption that fits another
                                                  region
"""
