"""Pipelines of scikit-learn, fitted on seeded data."""

import numpy
from case import Ready, floats
from skl2onnx import to_onnx
from sklearn import (
    cluster, compose, decomposition, ensemble, feature_selection, gaussian_process, impute, linear_model,
    mixture, naive_bayes, neighbors, neural_network, pipeline, preprocessing, random_projection, svm, tree,
)


def data():
    random = numpy.random.default_rng(3)
    x = random.standard_normal((200, 6)).astype(numpy.float32)
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int) + (x[:, 3] > 1), x @ numpy.arange(6) + x[:, 0] ** 2


def pipe(*steps, regression=False, **options):
    """Returns the case of a fitted pipeline, at 1, 5 and 20 rows."""
    x, labels, values = data()
    model = pipeline.make_pipeline(*steps).fit(x, values if regression else labels)
    last = model.steps[-1][1]
    if hasattr(last, "classes_"):
        options = {"options": {id(last): {"zipmap": False}}} | options
    onnx_model = to_onnx(model, x[:1], **options)
    return Ready(onnx_model.SerializeToString(), [{"X": floats(run, rows, 6)} for run, rows in enumerate([1, 5, 20])])


def logistic():
    return pipe(preprocessing.StandardScaler(), linear_model.LogisticRegression())


def forest():
    return pipe(preprocessing.MinMaxScaler(), ensemble.RandomForestClassifier(20, random_state=0))


def boosting():
    return pipe(ensemble.GradientBoostingRegressor(n_estimators=30, random_state=0), regression=True)


def neighbors_classifier():
    return pipe(preprocessing.RobustScaler(), neighbors.KNeighborsClassifier(5))


def neighbors_regressor():
    return pipe(neighbors.KNeighborsRegressor(4, weights="distance"), regression=True)


def support_vectors():
    return pipe(preprocessing.StandardScaler(), svm.SVC(probability=True, random_state=0))


def support_regressor():
    return pipe(preprocessing.StandardScaler(), svm.SVR(kernel="poly", degree=2), regression=True)


def perceptron():
    return pipe(preprocessing.PolynomialFeatures(2), neural_network.MLPClassifier((16, 8), max_iter=60, random_state=0))


def components():
    return pipe(decomposition.PCA(3, whiten=True), naive_bayes.GaussianNB())


def columns():
    parts = [
        ("bins", preprocessing.KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), [0, 1]),
        ("power", preprocessing.PowerTransformer(), [2, 3]),
        ("rest", pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.Normalizer()), [4, 5]),
    ]
    return pipe(compose.ColumnTransformer(parts), tree.DecisionTreeClassifier(max_depth=5, random_state=0))


def voting():
    parts = [("a", linear_model.RidgeClassifier()), ("b", tree.ExtraTreeClassifier(random_state=0))]
    return pipe(ensemble.StackingClassifier(parts, linear_model.LogisticRegression()))


def adaboost():
    return pipe(ensemble.AdaBoostClassifier(n_estimators=8, random_state=0))


def gaussian():
    return pipe(gaussian_process.GaussianProcessRegressor(random_state=0), regression=True)


def outliers():
    return pipe(ensemble.IsolationForest(n_estimators=15, random_state=0), target_opset={"": 17, "ai.onnx.ml": 3})


def clusters():
    return pipe(preprocessing.MaxAbsScaler(), cluster.KMeans(4, random_state=0, n_init=1))


def mixtures():
    return pipe(mixture.GaussianMixture(3, random_state=0))


def selection():
    projection = random_projection.GaussianRandomProjection(3, random_state=0)
    return pipe(feature_selection.SelectKBest(k=5), projection, linear_model.Ridge(), regression=True)
